"""The order of stages: parents first, and what does not depend on each other at the same time."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from alpacafarm.errors import AlpacaFarmError
from alpacafarm.stage import Stage

log = logging.getLogger(__name__)

T = TypeVar("T")


def in_turn(stages: Sequence[Stage], make: Callable[[Stage], T]) -> dict[str, T]:
    """By key what `make` made of each stage, one after the other. `stages` have parents first."""
    return {stage.key: make(stage) for stage in rows_first(stages)}


def at_once(
    stages: Sequence[Stage],
    make: Callable[[Stage], T],
    *,
    most: int,
    stop: Callable[[], None],
) -> tuple[dict[str, T], dict[str, AlpacaFarmError]]:
    """By key what `make` made of each stage, up to `most` of them at the same time, and what failed.

    A stage begins when its parents in `stages` are made. Those below a failed one fail by its error, all
    others are made. Whatever else is raised ends everything: `stop` is called, and it is passed on.
    """
    waiting = {stage.key: stage for stage in rows_first(stages)}
    made: dict[str, T] = {}
    failed: dict[str, AlpacaFarmError] = {}
    with ThreadPoolExecutor(most, thread_name_prefix="stage") as pool:
        running: dict[Future[T], Stage] = {}
        try:
            while waiting or running:
                _pass_on_failures(waiting, failed)
                for stage in _ready(waiting, running, most):
                    running[pool.submit(make, waiting.pop(stage.key))] = stage
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    stage = running.pop(future)
                    try:
                        made[stage.key] = future.result()
                    except AlpacaFarmError as error:
                        log.error("stage %s failed: %s", stage.name, str(error).split("\n")[0])
                        failed[stage.key] = error
        except BaseException:
            stop()
            raise
    return made, failed


def _ready(waiting: Mapping[str, Stage], running: Mapping[Future[T], Stage], most: int) -> list[Stage]:
    """Those that wait for nothing in `waiting` or `running`, as many as there is room for."""
    ahead = {*waiting, *(stage.key for stage in running.values())}
    free = [stage for stage in waiting.values() if not ahead & parents(stage)]
    return free[: most - len(running)]


def _pass_on_failures(waiting: dict[str, Stage], failed: dict[str, AlpacaFarmError]) -> None:
    for key, stage in list(waiting.items()):  # parents come first, so one pass reaches all below
        cause = next((failed[parent] for parent in parents(stage) if parent in failed), None)
        if cause is not None:
            failed[key] = cause
            del waiting[key]


def parents(stage: Stage) -> set[str]:
    return {node.key for node in stage.inputs.values() if isinstance(node, Stage)}


def rows_first(stages: Sequence[Stage]) -> list[Stage]:
    """Stages that only read data come first: a malformed row is found before any model is trained."""
    return sorted(stages, key=lambda stage: stage.uses_devices or bool(parents(stage)))
