"""Metrics of one stage: `log.jsonl` always, Weights & Biases when asked. Only rank 0 writes."""

import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Literal

from alpacafarm.errors import SpecError
from alpacafarm.ports import Tracker

log = logging.getLogger(__name__)


class JsonLines:
    """One object for each logged step, on the disk cache before `log` returns.

    Floats are written with all their digits, so equal files mean equal runs. JSON has no NaN: it becomes
    null, with a warning the first time a metric is not finite.
    """

    def __init__(self, path: Path, rank: int = 0) -> None:
        self.path = path
        self._writes = rank == 0
        self._file: IO[str] | None = None
        self._warned: set[str] = set()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if not self._writes:
            return
        row: dict[str, Any] = {"step": step}
        row |= {name: self._number(step, name, value) for name, value in values.items()}
        if self._file is None:
            self._keep(math.inf)  # drops the torn last line that a kill may leave
            self._file = self.path.open("a", encoding="utf-8")
        self._file.write(json.dumps(row, allow_nan=False) + "\n")
        self._file.flush()

    def rewind(self, step: int) -> None:
        """Keeps the lines up to and including `step`."""
        if self._writes:
            self.close()
            self._keep(step)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, step: float) -> None:
        """Rewrites the file without later steps and without what a kill or a power cut left unreadable."""
        if not self.path.exists():
            return
        old = self.path.read_bytes()
        new = b"".join(line for line in old.splitlines(keepends=True) if _step(line) <= step)
        if new == old:
            return
        aside = self.path.with_name(f"{self.path.name}.tmp")
        with aside.open("wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(self.path)

    def _number(self, step: int, name: str, value: float) -> float | None:
        number = value if isinstance(value, int) else float(value)
        if math.isfinite(number):
            return number
        if name not in self._warned:
            self._warned.add(name)
            log.warning("%s is %s at step %d; %s has null there", name, number, step, self.path)
        return None


class WandbTracker:
    """Weights & Biases. `offline` needs neither network nor account; `wandb sync` uploads later.

    Its history cannot be shortened: after `rewind` the repeated steps are there twice, in `log.jsonl` once.
    """

    def __init__(
        self,
        folder: Path,
        *,
        project: str,
        group: str,
        name: str,
        config: Mapping[str, Any],
        mode: Literal["online", "offline"] = "offline",
        rank: int = 0,
    ) -> None:
        self._run: Any = None
        if rank != 0:
            return
        try:
            import wandb
        except ImportError as error:
            raise SpecError("tracking with wandb needs its package: run `pip install wandb`") from error
        folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(silent=True, console="off")
        self._run = wandb.init(
            dir=str(folder),
            project=project,
            group=group,
            name=name,
            config=dict(config),
            mode=mode,
            settings=settings,
        )
        self._run.define_metric("*", step_metric="step")  # ours may go back, theirs may not

    def log(self, step: int, values: Mapping[str, float]) -> None:
        if self._run is not None:
            self._run.log({"step": step, **values})

    def rewind(self, step: int) -> None:
        """Nothing to do: see the class."""

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


class Fanout:
    """Several trackers as one."""

    def __init__(self, *trackers: Tracker) -> None:
        self.trackers = trackers

    def close(self) -> None:
        for tracker in self.trackers:
            tracker.close()

    def log(self, step: int, values: Mapping[str, float]) -> None:
        for tracker in self.trackers:
            tracker.log(step, values)

    def rewind(self, step: int) -> None:
        for tracker in self.trackers:
            tracker.rewind(step)


def _step(line: bytes) -> float:
    """The step of a line; not a number, so never kept, where the line is torn."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.nan
    except ValueError:
        return math.nan
