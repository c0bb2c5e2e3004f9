"""The runs behind the table: composed and checked together, then performed, several at a time where asked.

Each has a folder of its own, so the same command goes on where it was: a run that has its result is not
touched, and what an unfinished one has made is in the store.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from concurrent.futures import FIRST_COMPLETED, Future, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from alpacafarm import commandline, lookup, run
from alpacafarm.errors import AlpacaFarmError, NeedsLabels, StageError
from alpacafarm.job import Job, finished, in_common, not_written, noted, perform, refuse
from alpacafarm.report import folder as run_folder
from alpacafarm.report.result import Result
from alpacafarm.table2 import workers
from alpacafarm.table2.progress import Progress
from alpacafarm.table2.rows import COLUMNS, IN_A_QUEUE, SCALES, TRAINED, Column, Row, Scale
from launchers.local import cores

log = logging.getLogger(__name__)

RUNS = "runs"  # the folder of the run folders


@dataclass(frozen=True)
class Asked:
    """What the command line asks for. `overrides` hold for every run and win over all others.

    One that begins with a column and a colon, `human:feedback/judge=people`, holds for that column's runs.
    """

    scale: str
    seeds: tuple[int, ...]
    rows: tuple[str, ...]
    out: Path
    overrides: tuple[str, ...] = ()
    jobs: int | None = None  # runs at the same time; None: as many as suit

    def check(self) -> None:
        """SpecError with all that no run could be made of."""
        problems = []
        for name in self.rows:
            if name not in TRAINED:
                told = lookup.choices(name, TRAINED)
                problems.append(f"--rows {name}: no run here stands for such a row; {told}")
        if len(set(self.seeds)) < len(self.seeds) or not self.seeds:
            problems.append("--seeds: at least one, and each another, such as --seeds 1,2,3")
        if self.jobs is not None and self.jobs < 1:
            problems.append(f"--jobs {self.jobs}: must be at least 1; leave it out for as many as suit")
        for override in self.overrides:
            key, equals, _ = _in_column(override)[1].partition("=")
            if not equals:
                problems.append(f"{override}: cannot be read; write KEY=VALUE")
            elif key in ("seed", "action", "method", "feedback", "name"):
                problems.append(f"{override}: the table sets it for each run; use --seeds, --rows or --dry")
        refuse(problems)


@dataclass(frozen=True)
class Planned:
    """One cell of the table for one seed, checked and not yet run."""

    row: Row
    column: Column
    seed: int
    job: Job
    folder: Path

    @property
    def title(self) -> str:
        return f"{self.row.label} on {self.column}, seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """`result` or `failure`; neither for a run whose turn has not come."""

    planned: Planned
    result: Result | None = None
    failure: str | None = None
    exit_code: int = 0
    seconds: float = 0.0  # of this process

    @property
    def waits(self) -> bool:
        """For people's labels: its failure says where."""
        return self.exit_code == NeedsLabels.exit_code


def planned(asked: Asked) -> list[Planned]:
    """Every run, in the order in which to perform them. SpecError lists what is wrong with any of them.

    A seed is finished before the next begins, and runs of few stages come first: they are the ones that the
    others share.
    """
    asked.check()
    problems: list[str] = []
    found: list[Planned] = []
    with commandline.configs():
        for row in (TRAINED[name] for name in asked.rows):
            for column in COLUMNS:
                with noted(problems):
                    found += _with_each_seed(asked, row, column, problems)
    refuse(problems)
    return sorted(found, key=lambda p: (asked.seeds.index(p.seed), len(p.job.plan.stages)))


def _with_each_seed(asked: Asked, row: Row, column: Column, problems: list[str]) -> Iterator[Planned]:
    overrides = overrides_of(asked, row, column)
    cfg, choices = commandline.composed(overrides, problems)
    for seed in asked.seeds:
        cfg.seed = seed  # composing takes half a second, and this is all that an override of it does
        folder = asked.out / RUNS / asked.scale / str(seed) / column / row.name
        yield Planned(row, column, seed, run.prepared(cfg, [*overrides, f"seed={seed}"], choices), folder)


def overrides_of(asked: Asked, row: Row, column: Column) -> list[str]:
    """The command line of a cell, without its seed. Of two values for a key the later one stands."""
    scale: Scale = SCALES[asked.scale]
    own = [text for only, text in map(_in_column, asked.overrides) if only in (None, column)]
    own_judge = any(override.startswith(("eval=", "eval/judge=", "eval.judge")) for override in own)
    parts = [
        *(row.overrides or ()),
        f"feedback={column}",
        f"name={row.name}_{column}",
        *scale.overrides,
        *(() if own_judge else scale.judges[column]),
        *(row.smoke if scale.is_short else ()),
        *own,
    ]
    return list({override.partition("=")[0].lstrip("+"): override for override in parts}.values())


def _in_column(override: str) -> tuple[str | None, str]:
    """The only column that an override holds for, None for all, and the override."""
    column, colon, rest = override.partition(":")
    return (column, rest) if colon and column in COLUMNS else (None, override)


def with_one_budget(items: Sequence[Planned]) -> list[Planned]:
    """SpecError where the budget does not suffice for the whole table."""
    jobs = in_common([item.job for item in items], group="table2")
    return [replace(item, job=job) for item, job in zip(items, jobs, strict=True)]


def suitable_jobs(asked: Asked, items: Sequence[Planned]) -> int:
    """How many runs at the same time: as asked, else as many as pay."""
    if asked.jobs is not None:
        return asked.jobs
    if items[0].job.spec.cluster.slurm is not None:
        return IN_A_QUEUE
    return min(cores(), SCALES[asked.scale].most_jobs)


def carry_out(
    items: Sequence[Planned],
    progress: Progress,
    update: Callable[[Sequence[Outcome]], None],
    jobs: int = 1,
) -> list[Outcome]:
    """Performs what has no result yet; `update` gets all outcomes so far before the first run and after each.

    A run that fails does not end the others.
    """
    outcomes = [earlier(item) for item in items]
    to_do = [place for place, outcome in enumerate(outcomes) if outcome.result is None]
    for place, outcome in enumerate(outcomes):
        if outcome.result is not None:
            progress.known(place, outcome.planned.title, outcome.result)
    update(outcomes)
    performed = in_turn if jobs == 1 else partial(at_once, jobs=jobs)
    for place, outcome in performed(items, to_do, progress):
        outcomes[place] = outcome
        told = str(outcome.failure) if outcome.waits else f"failed: {outcome.failure}"
        progress.ended(place, outcome.result, told, outcome.seconds)
        update(outcomes)
    return outcomes


def in_turn(
    items: Sequence[Planned], to_do: Sequence[int], progress: Progress
) -> Iterator[tuple[int, Outcome]]:
    for number, place in enumerate(to_do):
        progress.begins(place, items[place].title, to_do=len(to_do) - number)
        yield place, attempt(items[place])


def at_once(
    items: Sequence[Planned], to_do: Sequence[int], progress: Progress, *, jobs: int
) -> Iterator[tuple[int, Outcome]]:
    """As `in_turn`, but `jobs` of them at the same time."""
    waiting, running = list(to_do), dict[Future[Outcome], int]()
    made = {key for place in set(range(len(items))) - set(to_do) for key in keys_of(items[place])}
    with workers.processes(jobs) as pool:
        while waiting or running:
            while waiting and len(running) < jobs:
                place = best_next(items, waiting, running.values(), made)
                progress.begins(place, items[place].title, to_do=len(waiting) + len(running))
                waiting.remove(place)
                running[pool.submit(workers.interruptible, attempt, items[place])] = place
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                place = running.pop(future)
                made |= keys_of(items[place])
                yield place, of_process(future)


def best_next(
    items: Sequence[Planned], waiting: Sequence[int], running: Iterable[int], made: Set[str]
) -> int:
    """The first that shares fewest stages with what the running ones are about to make: it would wait for
    these."""
    busy = {key for place in running for key in keys_of(items[place])} - made
    return min(waiting, key=lambda place: len(keys_of(items[place]) & busy))


def keys_of(item: Planned) -> set[str]:
    return {stage.key for stage in item.job.plan.stages}


def of_process(future: Future[Outcome]) -> Outcome:
    try:
        return future.result()
    except BrokenProcessPool:
        raise StageError(
            "the process of a run was killed, by the system where memory ran out; what was made is kept: "
            "give the command again, with --jobs 1 if memory is short"
        ) from None


def earlier(item: Planned) -> Outcome:
    """The result that the run's folder holds, if it is that of the same stages."""
    return Outcome(item, finished(item.job, item.folder))


def attempt(item: Planned) -> Outcome:
    started = time.perf_counter()

    def failed(told: str, exit_code: int) -> Outcome:
        return Outcome(item, failure=told, exit_code=exit_code, seconds=time.perf_counter() - started)

    try:
        with logged(item.folder):
            report = perform(item.job, item.folder)
    except AlpacaFarmError as error:
        return failed(str(error), error.exit_code)
    except OSError as error:
        places = f"store={item.job.spec.store} and --out {item.folder}"
        return failed(not_written(error, places), AlpacaFarmError.exit_code)
    except Exception as error:  # a fault of ours, which must not cost a night of other runs
        told = f"{type(error).__name__}: {error}; {item.folder / 'run.log'} has the traceback"
        run_folder.note_failure(item.folder, told)
        return failed(told, AlpacaFarmError.exit_code)
    return Outcome(item, report.result, seconds=time.perf_counter() - started)


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Everything that is logged also goes to the run's `run.log`."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / "run.log", encoding="utf-8")
    handler.setFormatter(logging.Formatter("[%(asctime)s][%(levelname)s] %(message)s", "%H:%M:%S"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    except Exception:
        log.exception("the run failed")
        raise
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()
