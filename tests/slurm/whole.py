"""PPO over two nodes from the shell; what it builds on is made once, in this process."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.runs import farm

PATIENCE_S = 900
PLAIN = ("cluster.engine=plain", "cluster.processes=1")
NODES = (
    "cluster=slurm_2node",
    "cluster.slurm.gpus_per_node=0",
    "cluster.slurm.cpus_per_task=1",
    "cluster.slurm.memory_gb=2",
    "cluster.slurm.light.memory_gb=1",
    "cluster.slurm.light.cpus_per_task=1",
    "cluster.slurm.poll_s=0.3",
)


def upstream(home: Path) -> Path:
    """A store with everything but PPO's policy and what is made from it."""
    farm.perform(home / "run", [*farm.tiny("ppo", *PLAIN, f"store={home / 'store'}")])
    records = {path.parent: json.loads(path.read_text()) for path in home.glob("store/*/*/artifact.json")}
    gone = {told["key"] for told in records.values() if told["stage"] == "ppo"}
    for folder, told in sorted(records.items(), key=lambda record: record[1]["started"]):
        if told["key"] in gone or gone & set(told["inputs"].values()):
            gone.add(told["key"])
            shutil.rmtree(folder)
    return home / "store"


@dataclass
class Run:
    """A command at work in `home`, with a store of its own."""

    home: Path
    spec: Sequence[str]
    process: subprocess.Popen[bytes]

    def finish(self) -> None:
        assert self.process.wait(PATIENCE_S) == 0, self.said()

    def said(self) -> str:
        return (self.home / "err").read_text()

    @property
    def policy(self) -> Path:
        (found,) = (
            path.parent
            for path in self.home.glob("store/policy/*/artifact.json")
            if json.loads(path.read_text())["stage"] == "ppo"
        )
        return found

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.policy / "log.jsonl").read_text().splitlines()]

    def result(self) -> Mapping[str, Any]:
        """Of a command that evaluated."""
        return farm.read(self.home / "run").result

    def evaluated(self) -> Mapping[str, Any]:
        """The result after an evaluation in this process, of what the command has trained."""
        asked = farm.tiny("ppo", *PLAIN, f"store='{self.home / 'store'}'")
        ran = farm.perform(self.home / "evaluated", [*asked, *self.spec])
        assert ran.states["ppo"] == "reused"
        return ran.result


def started(home: Path, store: Path, *cluster: str, spec: Sequence[str] = (), measured: bool = False) -> Run:
    """A run in the new folder `home`, from a copy of `store`. It ends with the training unless `measured`."""
    shutil.copytree(store, home / "store")
    asked = farm.tiny("ppo", f"store='{home / 'store'}'", f"hydra.run.dir='{home / 'run'}'", *cluster)
    command = farm.command(*asked, *spec, *(() if measured else ("eval=none",)))
    with (home / "err").open("a") as err:
        return Run(home, spec, subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=err))
