"""Whole runs over two nodes of a real SLURM."""

import json
import subprocess
import sys

import pytest

from tests.runs import farm

SITE = (
    "cluster.slurm.gpus_per_node=0",
    "cluster.slurm.cpus_per_task=1",
    "cluster.slurm.memory_gb=2",
    "cluster.slurm.light.memory_gb=1",
    "cluster.slurm.light.cpus_per_task=1",
    "cluster.slurm.poll_s=0.3",
)


def overrides(home, *more):
    return [
        *farm.TINY,
        *farm.ROWS,
        *farm.UPSTREAM,
        *farm.METHOD["ppo"],
        "method=ppo",
        f"store={home}/store",
        *more,
    ]


def started(home, *more):
    command = [sys.executable, "-m", "alpacafarm.run", *overrides(home, *more), f"hydra.run.dir={home}/run"]
    return subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=(home / "err").open("a"))


def result(home):
    return json.loads((home / "run" / "result.json").read_text())


def log_of(home, kind, stage):
    for place in (home / "store" / kind).iterdir():
        told = json.loads((place / "artifact.json").read_text())
        if told["stage"] == stage:
            return [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    raise AssertionError(f"no {stage}")


@pytest.mark.parametrize("zero", [2, 3])
def test_two_nodes_train_as_two_processes_of_this_machine(home, tmp_path, zero):
    logs = []
    for name, more in (("nodes", ("cluster=slurm_2node", *SITE)), ("here", ("cluster=local_2proc",))):
        place = tmp_path / name
        place.mkdir()
        process = started(place, *more, f"cluster.zero.stage={zero}")
        assert process.wait(300) == 0, (place / "err").read_text()
        logs.append(log_of(place, "policy", "ppo"))
        assert result(place)["eval"]["n_total"] > 0
    for there, here in zip(*logs, strict=True):
        assert there.keys() == here.keys()
        for name in ("loss", "kl", "reward/mean"):
            assert there[name] == pytest.approx(here[name], abs=1e-5)
