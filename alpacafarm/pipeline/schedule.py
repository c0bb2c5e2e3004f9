"""The order of stages: parents first, and what does not depend on each other at the same time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Generic, TypeVar

from alpacafarm.errors import StageError
from alpacafarm.stage import Stage

log = logging.getLogger(__name__)

T = TypeVar("T")


def in_turn(stages: Sequence[Stage], make: Callable[[Stage], T]) -> dict[str, T]:
    """By key what `make` made of each stage, one after the other. `stages` have parents first."""
    return {stage.key: make(stage) for stage in rows_first(stages)}


class AtOnce(Generic[T]):
    """Makes stages in threads, up to `most` at the same time, while its block is entered.

    Of those whose parents are made, the first in `stages` begins first. Those below a failed one fail by its
    error, all others are made. The block's end waits for all; leaving it by an error calls `stop`, which must
    end what runs, and begins nothing more.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        make: Callable[[Stage], T],
        *,
        most: int,
        stop: Callable[[], None],
    ) -> None:
        self.make, self.stop = make, stop
        self._waiting = {stage.key: stage for stage in stages}
        self._before = {stage.key: parents(stage) & self._waiting.keys() for stage in stages}
        self._made: dict[str, T] = {}
        self._failed: dict[str, Exception] = {}
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"stage-{number}", daemon=True)
            for number in range(min(most, len(stages)))
        ]

    def __enter__(self) -> AtOnce[T]:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            with self._changed:
                for key in self._waiting:
                    self._failed[key] = StageError("was not begun: the command was ended")
                self._waiting.clear()
                self._changed.notify_all()
            self.stop()
        for thread in self._threads:
            thread.join()

    def wait(self) -> None:
        """Until everything is made or has failed."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._made) + len(self._failed) == len(self._before))

    def made(self, stage: Stage) -> T:
        """What became of the stage, once it is made; raises what made it or one of its ancestors fail."""
        with self._changed:
            self._changed.wait_for(lambda: stage.key in self._made or stage.key in self._failed)
            if stage.key in self._failed:
                raise self._failed[stage.key]
            return self._made[stage.key]

    def _work(self) -> None:
        while (stage := self._next()) is not None:
            try:
                made = self.make(stage)
            except Exception as error:
                log.error("stage %s failed: %s", stage.name, str(error).split("\n")[0])
                with self._changed:
                    self._failed[stage.key] = error
                    self._pass_on()
                    self._changed.notify_all()
            else:
                with self._changed:
                    self._made[stage.key] = made
                    self._changed.notify_all()

    def _next(self) -> Stage | None:
        """The next to begin, once there is one; None when there will be none."""
        with self._changed:
            while self._waiting:
                for key, stage in self._waiting.items():
                    if self._before[key] <= self._made.keys():
                        del self._waiting[key]
                        return stage
                self._changed.wait()
        return None

    def _pass_on(self) -> None:
        """Fails what is below failed ones. Parents come first, so one pass reaches all."""
        for key in list(self._waiting):
            cause = next((self._failed[parent] for parent in self._before[key] & self._failed.keys()), None)
            if cause is not None:
                self._failed[key] = cause
                del self._waiting[key]


def parents(stage: Stage) -> set[str]:
    return {node.key for node in stage.inputs.values() if isinstance(node, Stage)}


def rows_first(stages: Sequence[Stage]) -> list[Stage]:
    """Stages that only read data come first: a malformed row is found before any model is trained."""
    return sorted(stages, key=lambda stage: stage.uses_devices or bool(parents(stage)))
