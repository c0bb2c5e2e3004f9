"""A table of a few tiny runs, undisturbed or killed on the way."""

import os
import signal
from pathlib import Path
from typing import Any
from unittest import mock

from alpacafarm.table2 import __main__ as command
from alpacafarm.table2.runs import Asked

TINY = (
    "model.architecture.vocab_size=400",
    "model.architecture.hidden_size=32",
    "model.architecture.layers=1",
    "model.architecture.heads=2",
    "model.architecture.ff_size=64",
    "data.pretrain=64",
    "data.sft=32",
    "data.preference=48",
    "data.eval=16",
    "eval.sft_draws=1",
    "cluster.engine=plain",
    "cluster.processes=1",
)


def asked(*rows: str, overrides: tuple[str, ...] = (), jobs: int = 1) -> Asked:
    return Asked("smoke", (1,), rows, Path("table2"), (*TINY, *overrides), jobs)


def make(home: Path, *rows: str, overrides: tuple[str, ...] = (), jobs: int = 1) -> int:
    os.chdir(home)
    return command.perform(asked(*rows, overrides=overrides, jobs=jobs), dry=False)


POINTS = (  # in the order in which they come
    "publish decode base",
    "write runs/smoke/1/human/base/overrides.json",
    "publish sft",
    "write runs/smoke/1/sim/sft10k/report.html",
    "write runs/smoke/1/human/sft10k/result.json",
    "write table2.md",
)


def make_until(home: Path, survived: Path, *rows: str) -> None:
    """`make`, but SIGKILL just before the first of `POINTS` that `survived` does not name yet."""
    from alpacafarm.artifacts import files
    from alpacafarm.artifacts.store import Store
    from alpacafarm.data import rows as texts

    def here(point: str) -> None:
        if point not in POINTS or (survived.exists() and point in survived.read_text().splitlines()):
            return
        with survived.open("a") as file:
            file.write(point + "\n")
        os.kill(os.getpid(), signal.SIGKILL)

    write, publish = files.write_aside, Store.publish

    def die_and_write(path: Path, text: str) -> None:
        if path.parts[0] == "table2":
            here(f"write {path.relative_to('table2')}")
        write(path, text)

    def die_and_publish(self: Any, stage: Any, *others: Any) -> Any:
        here(f"publish {stage.name}")
        return publish(self, stage, *others)

    with (
        mock.patch.object(texts, "write_aside", die_and_write),
        mock.patch("alpacafarm.report.render.write_aside", die_and_write),
        mock.patch.object(Store, "publish", die_and_publish),
    ):
        make(home, *rows)
