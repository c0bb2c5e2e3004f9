"""Save and resume inside a stage: weights, optimiser, random states, meter, position; all ranks or none."""

import json
import logging
import shutil
import time
from collections.abc import Mapping
from typing import Any

from alpacafarm.artifacts.files import sync_below, write_aside
from alpacafarm.ports import Context, Dist, Engine
from alpacafarm.preemption import Preempted, is_warned

log = logging.getLogger(__name__)


class Checkpoints:
    """Checkpoints of one training run under `ctx.scratch`.

    A checkpoint is complete when `latest.json` names it; that file is renamed into place after every rank has
    written. The ranks that go on from it may be others than those that wrote it, in number and in layout.
    """

    def __init__(self, engine: Engine, ctx: Context) -> None:
        self.engine, self.ctx = engine, ctx
        self.latest = ctx.scratch / "latest.json"
        self.saved_at = time.monotonic()
        self.went_on: list[str] = []

    def restore(self) -> tuple[int, dict[str, Any]]:
        """The step to go on from and the loop's own state; (0, {}) when nothing was saved."""
        found = self.ctx.dist.broadcast(self._found() if self.ctx.dist.rank == 0 else None)
        if found is None:
            self.ctx.track.rewind(0)
            return 0, {}
        writer = self.engine.restore(self.ctx.scratch / found["folder"])
        self.ctx.track.rewind(found["step"])
        self.ctx.meter.restore(dealt(found["meter"], writer.world, self.ctx.dist))
        log.info("%s: goes on from step %d", self.ctx.name, found["step"])
        self.went_on = found.get("went_on", [])
        if writer != self.engine.layout:
            self.went_on.append(f"step {found['step']}, saved on {writer}, on {self.engine.layout}")
        for how in self.went_on:
            self.ctx.went_on(how)
        return int(found["step"]), dict(found["state"])

    def _found(self) -> dict[str, Any] | None:
        """What `latest.json` says. A damaged one, or one without its checkpoint, costs the progress."""
        if not self.latest.exists():
            return None
        try:
            found: dict[str, Any] = json.loads(self.latest.read_text())
            if (self.ctx.scratch / found["folder"]).is_dir():
                return found
            problem = f"{found['folder']} is not there"
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
        log.warning("%s is damaged (%s); the stage starts from its beginning", self.latest, problem)
        return None

    def save_if_due(self, step: int, state: Mapping[str, Any] | None = None) -> None:
        """Saves when `checkpoint_every_s` has passed on rank 0, or when rank 0 was warned of its end.

        Then Preempted is raised on all ranks, which so stop after the same step.
        """
        due = time.monotonic() - self.saved_at >= self.ctx.checkpoint_every_s
        due, stop = self.ctx.dist.broadcast((due, is_warned()))
        if due or stop:
            self.save(step, state or {})
        if stop:
            raise Preempted(f"stopped after step {step}, which is saved")

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        folder = self.ctx.scratch / f"checkpoint-{step}"
        if self.ctx.dist.rank == 0 and folder.exists():
            shutil.rmtree(folder)  # of a save that was cut off
        self.ctx.dist.barrier()
        self.engine.checkpoint(folder)
        self.ctx.dist.barrier()
        sync_below(folder)  # by each machine what it has written: the checkpoint before will be deleted
        self.ctx.dist.barrier()
        if self.ctx.dist.rank == 0:
            record = {
                "step": step,
                "folder": folder.name,
                "state": dict(state),
                "meter": self.ctx.meter.state(),
                "went_on": self.went_on,
            }
            write_aside(self.latest, json.dumps(record))
            for old in self.ctx.scratch.glob("checkpoint-*"):
                if old != folder:
                    shutil.rmtree(old)
        self.ctx.dist.barrier()
        self.saved_at = time.monotonic()


def dealt(meter: Mapping[str, Any], writers: int, dist: Dist) -> dict[str, Any]:
    """A meter's state of one of `writers` equal ranks, its counts dealt out to the ranks that are here."""
    counts = ("tokens", "samples", "computed")
    return {**meter, **{name: (meter[name] * writers + dist.rank) // dist.world for name in counts}}


class Snapshots:
    """The policy as it was every so many steps, in `snapshots/step-N` of the artifact; the last is `model`.

    A snapshot is written before the checkpoint of its step, so a resumed run has it or writes it again.
    """

    def __init__(self, engine: Engine, ctx: Context, every: int | None) -> None:
        self.engine, self.ctx, self.every = engine, ctx, every

    def save_if_due(self, step: int) -> None:
        if self.every and step % self.every == 0:
            self.engine.export(self.ctx.out / "snapshots" / f"step-{step}")
