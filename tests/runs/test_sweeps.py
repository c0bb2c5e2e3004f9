"""Sweeps: what runs share is made once, side by side; one table of all, whatever became of them."""

import json
import signal
import subprocess
import time
from collections import Counter
from datetime import datetime
from itertools import pairwise

import pytest

from alpacafarm import run as run_module
from alpacafarm.errors import SpecError
from alpacafarm.job import begun, in_common
from alpacafarm.pipeline.budget import total
from tests.runs import farm

ROW = {"instruction": "Say hi.", "input": "", "output": "Hi."}
SHORT = ("upstream.sft.epochs=1", "upstream.rm.epochs=1")


def swept(folder):
    return json.loads((folder / "sweep.json").read_text())["runs"]


def stages(folder):
    """Of each run of a sweep its stages: state by key."""
    results = [json.loads(path.read_text()) for path in sorted(folder.glob("*/result.json"))]
    return [{stage["key"]: stage["state"] for stage in result["stages"]} for result in results]


def made(folder):
    return Counter(key for states in stages(folder) for key, state in states.items() if state != "reused")


def sft(place, *more):
    """A sweep of SFT over two files of rows in `place`, the first with a bad row."""
    (place / "good.jsonl").write_text(f"{json.dumps(ROW)}\n" * 20)
    (place / "bad.jsonl").write_text(json.dumps({"instruction": "a"}) + "\n")
    asked = farm.tiny("sft", "model=scratch", "data=files", world=False)
    asked += ["data.sft=bad.jsonl,good.jsonl", "data.pretrain=good.jsonl", "data.eval=good.jsonl"]
    return farm.command("-m", *asked, "eval=none", "hydra.sweep.dir=sweep", *more)


def run(command, place, code=0):
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    assert done.returncode == code, done.stderr[-3000:]
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def ppo(tmp_path_factory):
    """Where a sweep of PPO over its KL coefficient has run."""
    place = tmp_path_factory.mktemp("ppo sweep")
    asked = [*farm.tiny("ppo"), *SHORT, "kl_coef=0.002,0.02", "cluster.at_once=2"]
    run(farm.command("-m", *asked, "hydra.sweep.dir=sweep"), place)
    return place


def test_what_runs_share_is_made_once_and_told_to_the_first(ppo):
    counts = made(ppo / "sweep")
    assert set(counts.values()) == {1}
    first, second = stages(ppo / "sweep")
    assert set(first.values()) == {"made"}
    assert sorted(second.values()).count("made") == 3  # PPO, its answers, their comparison
    assert {path.name for path in ppo.glob("store/*/*") if path.suffix != ".partial"} >= set(counts)


def test_a_folder_may_be_named_after_what_differs(ppo):
    named = ("hydra.sweep.dir=named", "hydra.sweep.subdir='${hydra.job.override_dirname}'")
    asked = [*farm.tiny("ppo"), *SHORT, "kl_coef=0.002,0.02"]
    common = [override.partition("=")[0] for override in asked[:-1]]
    excluded = f"hydra.job.config.override_dirname.exclude_keys=[{','.join(common)}]"
    run(farm.command("-m", *asked, *named, excluded), ppo)
    folders = {path.parent.name: json.loads(path.read_text()) for path in ppo.glob("named/*/spec.json")}
    assert {name: told["kl_coef"] for name, told in folders.items()} == {
        "kl_coef=0.002": 0.002,
        "kl_coef=0.02": 0.02,
    }


def test_stages_run_at_the_same_time(ppo):
    told = [json.loads(path.read_text()) for path in ppo.glob("store/*/*/artifact.json")]
    begun = [(datetime.fromisoformat(each["started"]).timestamp(), each["seconds"]) for each in told]
    begun.sort()
    assert any(start + seconds > later for (start, seconds), (later, _) in pairwise(begun))


def test_a_run_that_has_its_result_is_left_alone_and_a_missing_one_is_told_again(ppo):
    kept, lost = (ppo / "sweep" / number / "result.json" for number in "01")
    before = kept.stat().st_mtime_ns
    lost.unlink()
    run(farm.command("resume=sweep"), ppo)
    assert kept.stat().st_mtime_ns == before
    assert {stage["state"] for stage in json.loads(lost.read_text())["stages"]} == {"reused"}
    assert [each["state"] for each in swept(ppo / "sweep")] == ["done", "done"]


def test_a_damaged_folder_is_told_in_the_table(tmp_path):
    asked = ["-m", *farm.tiny("base"), "eval=none", "hydra.sweep.dir=sweep"]
    (tmp_path / "sweep" / "old").mkdir(parents=True)
    (tmp_path / "sweep" / "old" / "spec.json").write_text("{")
    run(farm.command(*asked), tmp_path)
    told = {each["run"]: each for each in swept(tmp_path / "sweep")}
    assert {name: each["state"] for name, each in told.items()} == {"0": "done", "old": "failed"}
    assert "damaged: " in told["old"]["failure"]


def test_two_runs_in_one_folder_are_refused(tmp_path):
    asked = ["-m", *farm.tiny("base"), "seed=1,2", "hydra.sweep.dir=sweep", "hydra.sweep.subdir=same"]
    told = run(farm.command(*asked), tmp_path, code=2)
    assert "hydra.sweep.subdir=same: sweep/same is the folder of run 0 and of run 1; set it" in told
    assert not (tmp_path / "store").exists()


def test_a_sweep_with_a_failing_job_has_a_table_of_all(tmp_path):
    said = run(sft(tmp_path), tmp_path, code=2)
    assert f"Sweep: {tmp_path / 'sweep' / 'sweep.html'}\n" in said
    assert said.endswith("runs without a result: 1; python -m alpacafarm.run resume=sweep goes on\n")
    told = swept(tmp_path / "sweep")
    assert [run["state"] for run in told] == ["failed", "done"]
    assert "bad.jsonl:1: output=None must be text" in told[0]["failure"]
    settings = [run["settings"]["data.sft"].rpartition("/")[2] for run in told]
    assert settings == ["bad.jsonl", "good.jsonl"]
    assert "bad.jsonl:1" in (tmp_path / "sweep" / "sweep.html").read_text()


@pytest.mark.parametrize("at_once", [1, 2])
def test_weights_and_biases_gathers_the_runs_of_a_sweep(tmp_path, monkeypatch, at_once):
    monkeypatch.chdir(tmp_path)
    told = [f"cluster.at_once={at_once}", "store=store", "seed=1,2"]
    jobs = run_module.check(["-m", *farm.tiny("sft"), *told])
    (named,) = run_module.check([*farm.tiny("sft"), "store=store", "tracking.group=mine"])
    groups = [
        json.loads(begun(job, tmp_path).settings)["tracking"]["group"]
        for job in in_common([*jobs, named], group="multirun/sft/today")
    ]
    assert groups == ["multirun/sft/today"] * 2 + ["mine"]


def test_a_sweep_spends_from_one_budget(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = ("api.endpoints.openai.base_url=http://localhost:9", "api.endpoints.openai.api_key_env=null")
    asked = ["-m", *farm.tiny("sft"), "eval/judge=api", *place, "store=store", "method.optim.lr=1e-3,1e-4"]
    jobs = run_module.check([*asked, "budget.max_calls=1000"])
    shared = in_common(jobs)
    keys = {stage.key for job in jobs for stage in job.plan.stages}
    assert [set(json.loads(begun(job, tmp_path).settings)["stages"]) for job in shared] == [keys, keys]
    each = [total(job.plan.stages).calls for job in jobs]
    assert min(each) > 0
    short = run_module.check([*asked, f"budget.max_calls={sum(each) - 1}"])
    said = (
        rf"^budget\.max_calls={sum(each) - 1}: the plan of 2 runs is estimated at {sum(each)} calls; raise it"
    )
    with pytest.raises(SpecError, match=said):
        in_common(short)
    apart = in_common(run_module.check([*asked, f"budget.max_calls={each[0]},{each[0] + 1}"])[::3])
    assert [job.sharing for job in apart] == [(), ()]


def test_an_interrupted_sweep_goes_on_by_resume(tmp_path):
    sweep = tmp_path / "sweep"
    asked = [*farm.tiny("sft"), *SHORT, "method.optim.lr=1e-3,1e-4,1e-5", "eval=none", "cluster.at_once=2"]
    asked = farm.command("-m", *asked, "hydra.sweep.dir=sweep")
    process = subprocess.Popen(asked, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (sweep / "sweep.json").exists():  # after the first run
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130, told
    assert told.endswith(
        "interrupted; what was made is kept, python -m alpacafarm.run resume=sweep goes on\n"
    )
    assert swept(sweep)[0]["state"] == "done"
    run(farm.command("resume=sweep"), tmp_path)
    assert [each["state"] for each in swept(sweep)] == ["done"] * 3
    assert set(made(sweep).values()) == {1}


def test_two_sweeps_at_once_make_nothing_twice(tmp_path):
    asked = [*farm.tiny("sft"), *SHORT, "method.optim.lr=1e-3,1e-4", "eval=none", "store=store"]
    both = [
        subprocess.Popen(
            farm.command("-m", *asked, f"hydra.sweep.dir={name}"),
            cwd=tmp_path,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two")
    ]
    told = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    counts = made(tmp_path / "one") + made(tmp_path / "two")
    finished = {path.parent.name for path in (tmp_path / "store").glob("*/*/artifact.json")}
    assert set(counts) == finished
    assert set(counts.values()) == {1}
    assert not list((tmp_path / "store").glob("*/*damaged*"))


def test_a_launcher_of_hydras_brings_a_failure_back_and_leaves_the_same_table(tmp_path):
    told = run(sft(tmp_path, "hydra/launcher=submitit_local"), tmp_path, code=2)
    assert "bad.jsonl:1: output=None must be text" in told
    assert "Traceback" not in told
    assert [run["state"] for run in swept(tmp_path / "sweep")] == ["failed", "done"]
