"""The jobs of a command line, composed the quick way where that is the same."""

import pytest
from omegaconf import OmegaConf

from alpacafarm import commandline, run
from alpacafarm.errors import SpecError


def both(*arguments):
    """Each job's config as the composer finds it and as Hydra alone does; and the composer."""
    with commandline.configs():
        jobs = commandline.jobs(["-m", *arguments])
        composer = commandline.Composer(jobs, lambda job: commandline.composed(job, []))
        quick = [OmegaConf.to_container(composer(overrides)[0]) for overrides in jobs]
        slow = [OmegaConf.to_container(commandline.composed(overrides, [])[0]) for overrides in jobs]
    return quick, slow, composer


@pytest.mark.parametrize(
    ("arguments", "is_quick"),
    [
        (("method=ppo", "kl_coef=0.002,0.02", "seed=1,2"), True),
        (("method=ppo", "kl_coef=null,0.02", "name=a,'b c',${seed}"), True),
        (("method=ppo", "method.optim.betas=[0.9,0.95],[0.8,0.9]"), False),
        (("method=ppo,sft", "seed=1,2"), False),
        (("method=ppo", "feedback=sim,human"), False),
        (("method=dpo", "+method.none=1,2"), False),
        (("method=dpo", "hydra.job.name=a,b"), False),
    ],
)
def test_the_quick_way_gives_what_hydra_gives(arguments, is_quick):
    quick, slow, composer = both(*arguments)
    assert quick == slow
    assert len(quick) > 1
    assert composer.only_keys is is_quick


def test_a_job_that_does_not_set_what_another_sets_has_the_configs_own_value():
    """As a sweeper asks for that makes up its jobs as it goes."""
    jobs = [["method=ppo", "seed=1", "kl_coef=0.1"], ["method=ppo", "seed=2"]]
    with commandline.configs():
        composer = commandline.Composer(jobs, lambda job: commandline.composed(job, []))
        assert [composer(job)[0].kl_coef for job in jobs] == [0.1, None]


def test_a_swept_key_that_does_not_exist_is_told_for_each_job():
    with commandline.configs():
        jobs = commandline.jobs(["-m", "method=sft", "method.optim.ler=1,2"])
        problems = []
        composer = commandline.Composer(jobs, lambda job: commandline.composed(job, problems))
        for overrides in jobs:
            composer(overrides)
    assert [problem.partition(":")[0] for problem in problems] == [
        "method.optim.ler=1",
        "method.optim.ler=2",
    ]


def test_only_a_sweep_is_resumed_and_as_it_was(tmp_path):
    with pytest.raises(
        SpecError, match=r"resume=.* must be the folder of a sweep.* goes on by its own command"
    ):
        commandline.resumed([f"resume={tmp_path}"])
    (tmp_path / "multirun.yaml").write_text(
        "hydra: {overrides: {task: ['seed=1,2'], "
        "hydra: ['hydra.sweep.dir=old', hydra.mode=MULTIRUN, 'hydra.job.name=a']}, "
        "runtime: {config_sources: [{path: hydra.conf, provider: hydra}, "
        "{path: /my groups, provider: command-line}]}}"
    )
    assert commandline.resumed([f"resume={tmp_path}"])[:3] == ["-m", "--config-dir=/my groups", "seed=1,2"]
    assert commandline.resumed([f"resume={tmp_path}", "-m", "--config-dir", "own"]) == [
        "-m",
        "--config-dir",
        "own",
        "seed=1,2",
        "hydra.job.name=a",
        f"hydra.sweep.dir='{tmp_path}'",
    ]
    with pytest.raises(SpecError, match=r"goes on with the sweep as it was; leave out seed=3"):
        commandline.resumed([f"resume={tmp_path}", "seed=3"])
    assert commandline.resumed(["seed=3"]) == ["seed=3"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[1]",
        "hydra: {overrides: ",
        "hydra: {overrides: {task: [a=1]}}",
        "hydra: {overrides: {task: [a=1], hydra: []}}",
        "hydra: {overrides: {task: 5, hydra: []}}",
        "hydra: {overrides: {task: [5], hydra: []}}",
    ],
)
def test_a_damaged_sweep_is_refused(content, tmp_path):
    (tmp_path / "multirun.yaml").write_text(content)
    with pytest.raises(SpecError, match=r"^resume=.* the multirun\.yaml that Hydra left there \(.*\); "):
        commandline.resumed([f"resume={tmp_path}"])


def test_overrides_may_stand_on_both_sides_of_the_flag_of_a_sweep():
    asked = commandline.multirun_first(["method=sft", "--multirun", "seed=1,2", "--config-dir", "own"])
    assert asked == ["--multirun", "method=sft", "seed=1,2", "--config-dir", "own"]


@pytest.mark.parametrize("flags", [["-m", "--cfg=job"], ["--run", "--multirun"], ["-m", "-i", "config"]])
def test_flags_of_hydra_that_exclude_each_other_are_refused(flags):
    with pytest.raises(SpecError, match=r"^-+\w+ -+\w+: Hydra takes one of these at a time; leave out"):
        run.check([*flags, "method=sft"])
