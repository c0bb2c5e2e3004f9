"""A wrong spec ends with exit code 2 and one line for each problem: key, value, what is required, a fix."""

import re
import resource
import subprocess
import sys

import pytest

from alpacafarm import commandline, run
from alpacafarm.errors import SpecError
from tests.config.wrong_specs import FILES, TABLE


def arguments(overrides: str, things: dict[str, str]) -> list[str]:
    return overrides.format(**things).split()


def test_the_table_is_long():
    assert len(TABLE) >= 80
    assert len({row.overrides for row in TABLE}) == len(TABLE)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.overrides or "nothing")
def test_every_problem_is_told_in_a_line_of_its_own(row, things):
    with pytest.raises(SpecError) as caught:
        run.check(commandline.over_a_saved_spec(arguments(row.overrides, things)))
    assert caught.value.exit_code == 2
    told = str(caught.value).split("\n")
    assert len(told) == len(row.lines), told
    for line, pattern in zip(told, row.lines, strict=True):
        assert re.search(pattern, line), line


@pytest.mark.parametrize(
    "overrides",
    [
        "method=sft",
        "method=ppo kl_coef=0.1",
        "method=rm",  # whose default evaluation is left out in silence
        "method=rm eval=none",
        "-m method=sft,rm,ppo seed=1,2",
        "-m recipe=overoptimisation",
        "action=status",
        f"method=sft {FILES} eval=none",  # nobody asks the default feedback, which could not answer
        f"method=ppo {FILES} eval/judge=reward feedback=human data.preferences={{pairs}}",
        "method=ppo given.rm={model} feedback/judge=reward",
        f"method=rm {FILES} data.simulated_preferences={{pairs}}",  # judged already: nobody is asked
        "-m method=base,sft,ppo feedback=sim,human model=llama-7b data=alpaca_farm eval/judge=reward "
        "cluster=slurm_8gpu cluster.zero.stage=3 cluster.gradient_checkpointing=true "
        "cluster.generation_batch=64",
    ],
)
def test_nothing_is_said_against_a_right_spec(overrides, things):
    run.check(arguments(overrides, things))


@pytest.mark.parametrize(
    "overrides",
    [
        "method=sft sead=1",
        "method=ppu",
        "",
        "method=ppo kl_coef=-1 seed=-1",
        "method=ppo given.sft={nothing}",
        "method=sft cluster.zero.stage=0 model.dtype=bfloat16 action=plan",
        "spec={text}",
        "method=sft seed=[1",
        "-m method=sft seed=1,-1",
    ],
)
def test_the_command_ends_with_two_and_the_message_alone(overrides, things, tmp_path):
    given = arguments(overrides, things)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "alpacafarm.run", *given], cwd=tmp_path, capture_output=True, text=True
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    with pytest.raises(SpecError) as caught:
        run.check(given)
    assert done.returncode == 2
    assert done.stderr == f"{caught.value}\n"  # no traceback, and none of Hydra's "Error executing job"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []  # no run folder, no store
    used_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert used_s < 3  # processor seconds: the clock also counts what else the machine does


def test_a_sweep_runs_every_job(tmp_path):
    command = [sys.executable, "-m", "alpacafarm.run", "-m", "method=sft,rm", "action=plan"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("rows pretrain") == 2


@pytest.mark.parametrize("flag", [["--help"], ["--cfg", "job"], ["--info", "defaults"]])
def test_flags_of_hydra_work(tmp_path, flag):
    command = [sys.executable, "-m", "alpacafarm.run", *flag, "method=ppo"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "method" in done.stdout
