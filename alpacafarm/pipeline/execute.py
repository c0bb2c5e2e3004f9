"""Executes a plan: what is in the store is reused, the rest is launched, parents first."""

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

from alpacafarm.artifacts.files import write_aside
from alpacafarm.artifacts.store import Store
from alpacafarm.pipeline import schedule
from alpacafarm.pipeline.plan import Plan
from alpacafarm.ports import Artifact, Launcher
from alpacafarm.stage import Stage

log = logging.getLogger(__name__)

State = Literal["reused", "resumed", "made"]


@dataclass(frozen=True)
class Done:
    """A stage that is in the store now, and how it came there in this run."""

    stage: Stage
    artifact: Artifact
    state: State
    seconds: float


def execute(plan: Plan, store: Store, launcher: Launcher, settings: str) -> list[Done]:
    """Makes what the plan's targets still need, and raises what failed.

    `settings` is written beside each stage for its worker.
    """
    todo = schedule.rows_first(missing(plan, store.find))

    def made(stage: Stage) -> Done:
        return make(stage, store, launcher, settings)

    if launcher.at_once == 1:
        found = schedule.in_turn(todo, made)
    else:
        stages = schedule.AtOnce(todo, made, most=launcher.at_once, stop=partial(end, store, launcher))
        with stages.running() as making:
            making.wait()
        found = {stage.key: making.made(stage) for stage in todo}
    return with_reused(plan, store, found)


def with_reused(plan: Plan, store: Store, found: Mapping[str, Done]) -> list[Done]:
    """What was made in this run, and of the rest what the store has."""
    done: list[Done] = []
    for stage in schedule.rows_first(plan.stages):
        if stage.key in found:
            done.append(found[stage.key])
        elif (artifact := store.find(stage)) is not None:
            done.append(Done(stage, artifact, "reused", 0.0))
    return done


def missing(plan: Plan, is_made: Callable[[Stage], object]) -> list[Stage]:
    """What must be made, parents first: targets that are not made, and their ancestors that are not."""
    needed: set[str] = set()

    def visit(stage: Stage) -> None:
        if stage.key in needed or is_made(stage):
            return
        needed.add(stage.key)
        for parent in stage.inputs.values():
            if isinstance(parent, Stage):
                visit(parent)

    for target in (plan.candidate, *([plan.scores] if plan.scores else [])):
        visit(target)
    return [stage for stage in plan.stages if stage.key in needed]


def make(stage: Stage, store: Store, launcher: Launcher, settings: str) -> Done:
    started = time.perf_counter()
    with store.claim(stage) as claim:
        if claim.artifact is not None:
            return Done(stage, claim.artifact, "reused", time.perf_counter() - started)
        log.info("stage %s (%s)%s", stage.name, stage.key, ": resuming" if claim.resumed else "")
        write_aside(claim.folder / "settings.json", settings)
        launcher.wait([launcher.submit(claim.folder, [])])
        artifact = store.publish(stage, claim.folder)
    state: State = "resumed" if claim.resumed else "made"
    seconds = time.perf_counter() - started
    log.info("stage %s %s in %.1f s", stage.name, state, seconds)
    return Done(stage, artifact, state, seconds)


def end(store: Store, launcher: Launcher) -> None:
    """Ends what runs, and the waiting for what other commands make."""
    store.give_up()
    launcher.cancel()
