"""Whole runs on almost nothing: a two-layer model, some dozens of rows, seconds."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from alpacafarm import commandline, run

ARCHITECTURE = "vocab_size: 400, hidden_size: 32, layers: 2, heads: 2, ff_size: 64, max_positions: 128"
TINY = (
    f"model.architecture={{{ARCHITECTURE}, tie_embeddings: true}}",
    "model.max_prompt_tokens=80",
    "model.max_response_tokens=24",
    "cluster.micro_batch=8",
    "cluster.generation_batch=32",
)
ROWS = (
    "data.pretrain=96",
    "data.sft=64",
    "data.preference=48",
    "data.unlabeled=32",
    "data.val=8",
    "data.eval=16",
)
UPSTREAM = (
    "upstream.base.optim.batch_size=16",
    "upstream.sft.optim.batch_size=16",
    "upstream.rm.optim.batch_size=8",
    "upstream.rm.held_out=8",
)
LONG = "upstream.base.epochs=5"  # of 6 steps, so that a kill meets it before it is made
ON_POLICY = (
    "method.steps=3",
    "method.rollouts_per_step=16",
    "method.optim.batch_size=8",
    "method.sampling.max_new_tokens=24",
)
CRITIC_FREE = ("reinforce", "rloo", "grpo", "dr_grpo", "reinforce_pp")
METHOD: dict[str, tuple[str, ...]] = {
    "base": (),
    "sft": ("method.optim.batch_size=16",),
    "rm": ("method.optim.batch_size=8", "method.held_out=8"),
    "ppo": ON_POLICY,
    **dict.fromkeys(CRITIC_FREE, ON_POLICY),
    "online_dpo": ON_POLICY,
    "best_of_n": ("method.n=3", "method.sampling.max_new_tokens=24"),
    "expiter": (
        "method.n=3",
        "method.rounds=2",
        "method.prompts=20",
        "method.sampling.max_new_tokens=24",
        "method.optim.batch_size=16",
    ),
    "rm_ensemble": ("method.members=2", "method.optim.batch_size=8", "method.held_out=8"),
    "feedme": ("method.optim.batch_size=16",),
    "dpo": ("method.optim.batch_size=8",),
    "simpo": ("method.optim.batch_size=8",),
    "kto": ("method.optim.batch_size=16",),
    "quark": (
        "method.steps=3",
        "method.rollouts_per_step=16",
        "method.optim.batch_size=8",
        "method.train_on=all",
        "method.pool_steps=2",
        "method.sampling.max_new_tokens=24",
    ),
    "reward_condition": ("method.optim.batch_size=16",),
}
# Settings of dpo: they differ in the loss alone, and not every test runs them all.
PAIRWISE = ("cdpo", "robust", "ipo", "hinge", "orpo", "dpo_nll", "dpo_norm")


def tiny(method: str, *overrides: str, world: bool = True) -> list[str]:
    """The overrides of a tiny run. Those of `overrides` come last and win."""
    rows = ROWS if world else ()
    return [
        f"method={method}",
        *overrides,
        *TINY,
        *rows,
        *UPSTREAM,
        *(() if method == "api_baseline" else METHOD["dpo" if method in PAIRWISE else method]),
    ]


@dataclass(frozen=True)
class Ran:
    """A finished run: its folder and what `result.json` says."""

    folder: Path
    result: Mapping[str, Any]

    def stage(self, name: str) -> Mapping[str, Any]:
        (found,) = (stage for stage in self.result["stages"] if stage["name"] == name)
        return dict(found)

    def artifact(self, name: str) -> Path:
        return Path(self.stage(name)["folder"])

    def facts(self, name: str) -> Mapping[str, Any]:
        return dict(json.loads((self.artifact(name) / "artifact.json").read_text())["facts"])

    @property
    def keys(self) -> dict[str, str]:
        return {stage["name"]: stage["key"] for stage in self.result["stages"]}

    @property
    def states(self) -> dict[str, str]:
        return {stage["name"]: stage["state"] for stage in self.result["stages"]}

    def hashes(self) -> dict[str, dict[str, str]]:
        """sha256 of every file of every stage, but for those that name folders and times."""
        return {name: hashes(self.artifact(name)) for name in self.keys}


def hashes(artifact: Path) -> dict[str, str]:
    told = {"artifact.json", "stage.json", "stage.log"}
    files = sorted(p for p in artifact.rglob("*") if p.is_file() and p.name not in told)
    return {p.relative_to(artifact).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def perform(folder: Path, overrides: Sequence[str]) -> Ran:
    """The run of a command line in this process: composed, checked, planned, executed, reported."""
    asked = commandline.over_a_saved_spec(overrides)
    problems: list[str] = []
    with commandline.configs():
        cfg, choices = commandline.composed(asked, problems)
        run.refuse(problems)
        job = run.prepared(cfg, asked, choices)
    folder.mkdir(parents=True, exist_ok=True)
    run.perform(job, folder)
    return read(folder)


def read(folder: Path) -> Ran:
    return Ran(folder, json.loads((folder / "result.json").read_text()))


def command(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "alpacafarm.run", *overrides]


def by_command(folder: Path, overrides: Sequence[str]) -> Ran:
    """The same from the shell."""
    done = subprocess.run(
        command(*overrides, f"hydra.run.dir={folder}"), capture_output=True, text=True, cwd=folder.parent
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return read(folder)


def perform_until(folder: Path, overrides: Sequence[str], survived: Path) -> None:
    """`perform`, but SIGKILL at the first point that the file `survived` does not name yet.

    The points are the second checkpoint of each training stage, the first shard of each decoding stage, and
    the moment before each stage's artifact is published.
    """
    from alpacafarm.artifacts.store import Store
    from alpacafarm.rollout import shards
    from alpacafarm.training.checkpoint import Checkpoints

    def here(point: str) -> None:
        if survived.exists() and point in survived.read_text().splitlines():
            return
        with survived.open("a") as file:
            file.write(point + "\n")
        os.kill(os.getpid(), signal.SIGKILL)

    save, write, publish = Checkpoints.save, shards.write_text, Store.publish

    def save_and_die(self: Any, step: int, state: Any) -> None:
        save(self, step, state)
        if step == 2:
            here(f"{self.ctx.name}: checkpoint")

    def write_and_die(path: Path, text: str) -> None:
        write(path, text)
        if path.name.startswith("shard-"):
            here(f"{path.parents[1].name}: shard")

    def die_and_publish(self: Any, stage: Any, *args: Any) -> Any:
        here(f"{stage.name}: publish")
        return publish(self, stage, *args)

    with (
        mock.patch.object(Checkpoints, "save", save_and_die),
        mock.patch.object(shards, "write_text", write_and_die),
        mock.patch.object(shards, "SHARD", 20),
        mock.patch.object(Store, "publish", die_and_publish),
    ):
        perform(folder, overrides)
