"""The order of stages: parents first, and what does not depend on each other at the same time."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
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
    """Makes stages in threads, up to `most` at the same time, while the block of `running` lasts.

    Of those whose parents are made, the first in `stages` begins first. Those below a failed one fail by its
    error, all others are made. `stop` must end what runs.
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
        self._failed: dict[str, tuple[BaseException, TracebackType | None]] = {}
        self._stopped = False
        self._changed = threading.Condition()
        self._threads = [
            threading.Thread(target=self._work, name=f"stage-{number}", daemon=True)
            for number in range(min(most, len(stages)))
        ]

    @contextmanager
    def running(self) -> Iterator[AtOnce[T]]:
        """Its end waits for all. Where that or the block is left by an error or Ctrl-C, nothing more begins.

        A second Ctrl-C does not wait for what was stopped.
        """
        try:
            for thread in self._threads:
                thread.start()
            yield self
            self.wait()
        except BaseException:
            self._stop()
            raise

    def _stop(self) -> None:
        with self._changed:
            self._stopped = True
            for key in self._waiting:
                self._failed[key] = StageError("was not begun: the command was ended"), None
            self._waiting.clear()
            self._changed.notify_all()
        self.stop()
        for thread in self._threads:
            if thread.is_alive():
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
                error, trace = self._failed[stage.key]
                # Of the runs that raise the same error it would else hold all frames.
                raise error.with_traceback(trace)
            return self._made[stage.key]

    def _work(self) -> None:
        while (stage := self._next()) is not None:
            try:
                made = self.make(stage)
            except BaseException as error:  # whatever it is, the main thread waits for it
                if not self._stopped:
                    log.error("stage %s failed: %s", stage.name, str(error).split("\n")[0])
                with self._changed:
                    self._failed[stage.key] = error, error.__traceback__
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
