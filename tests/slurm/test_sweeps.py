"""Sweeps on a SLURM: what runs share is made once, whoever makes the jobs."""

import json
import shutil
import subprocess
from collections import Counter

import pytest

from tests.runs import farm
from tests.slurm import whole

ONE_NODE = ("cluster=slurm", *whole.NODES[1:])


def sweep(place, *asked):
    command = farm.command("-m", *farm.tiny("ppo", *asked), "eval=none", "hydra.sweep.dir=sweep")
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=whole.PATIENCE_S)
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((place / "sweep" / "sweep.json").read_text())["runs"]
    assert {run["state"] for run in told} == {"done"}
    return [tuple(run["settings"].values()) for run in told]


def in_store(place):
    """How many artifacts the store has by their stage's name."""
    records = place.glob("store/*/*/artifact.json")
    return Counter(json.loads(path.read_text())["stage"] for path in records)


@pytest.mark.usefixtures("home")
def test_nine_runs_make_what_they_share_once_in_jobs_of_their_own(tmp_path):
    asked = ("kl_coef=0.002,0.0067,0.02", "method.optim.lr=1e-4,2e-4,4e-4")
    settings = sweep(tmp_path, *ONE_NODE, *asked)
    assert len(set(settings)) == 9
    stages = in_store(tmp_path)
    assert stages.pop("ppo") == 9
    assert {"base", "sft", "sample pairs", "annotate", "rm"} < stages.keys()
    assert set(stages.values()) == {1}
    results = [json.loads(path.read_text()) for path in tmp_path.glob("sweep/*/result.json")]
    made = [stage["key"] for told in results for stage in told["stages"] if stage["state"] == "made"]
    assert len(made) == len(set(made)) == 9 + stages.total()


@pytest.mark.usefixtures("home")
def test_hydras_launcher_makes_each_run_a_job(upstream, tmp_path):
    shutil.copytree(upstream, tmp_path / "store")
    before = in_store(tmp_path)
    launcher = ("hydra/launcher=submitit_slurm", "hydra.launcher.cpus_per_task=1", "hydra.launcher.mem_gb=2")
    assert len(set(sweep(tmp_path, *launcher, "kl_coef=0.002,0.02"))) == 2
    assert in_store(tmp_path) - before == {"ppo": 2}
