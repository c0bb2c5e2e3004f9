"""One run: checked as far as it can be without executing it, performed, and what it leaves in its folder."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alpacafarm import compose
from alpacafarm.api.prices import Prices
from alpacafarm.artifacts.store import Store
from alpacafarm.cost.fit import check_memory
from alpacafarm.errors import AlpacaFarmError, NeedsLabels, SpecError
from alpacafarm.pipeline.devices import process_count
from alpacafarm.pipeline.execute import missing
from alpacafarm.pipeline.plan import Plan, make_plan
from alpacafarm.ports import Launcher
from alpacafarm.report import folder as run_folder
from alpacafarm.report.result import Result
from alpacafarm.spec.api import BudgetSpec
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import Stage
from launchers import LauncherClass, load

if TYPE_CHECKING:
    from alpacafarm.pipeline.execute import Done
    from alpacafarm.report.render import RunReport


Stages = Callable[["Job", Path], Sequence["Done"]]  # makes those of a job, whose folder is given


@dataclass(frozen=True)
class Job:
    """A run whose spec is valid and whose stages are known. `overrides` are what the command line said.

    In a sweep, `group` gathers it in Weights & Biases, and `sharing` are the keys of all stages that its
    budget is for.
    """

    spec: RunSpec
    plan: Plan
    world: int
    launcher: LauncherClass
    overrides: tuple[str, ...]
    group: str | None = None
    sharing: tuple[str, ...] = ()


def checked(spec: RunSpec, overrides: Sequence[str]) -> Job:
    """The spec's plan, and how it will be launched. SpecError lists all that is wrong."""
    problems: list[str] = []
    with noted(problems):
        check_store(spec.store)
    with noted(problems):
        plan = make_plan(spec, eval_asked=any(o.startswith("eval=") for o in overrides))
    with noted(problems):
        Prices(spec.api)
    with noted(problems):
        world = process_count(spec)
    with noted(problems):
        launcher = load(spec.cluster.launcher)
    if not problems:
        with noted(problems):
            to_do = missing(plan, Store(Path(spec.store).expanduser()).is_done)
            check_memory(spec, to_do, world)
    refuse(problems)
    return Job(spec, plan, world, launcher, tuple(overrides))


def in_common(jobs: Sequence[Job], *, group: str | None = None) -> list[Job]:
    """The runs of a sweep or a table, of which those with the same budget and store spend from one.

    SpecError where that does not suffice for all of their missing stages.
    """
    from alpacafarm.pipeline.budget import check_budget

    purses: dict[tuple[str, str], list[Job]] = {}
    for job in jobs:
        purses.setdefault(purse(job), []).append(job)
    sharing: dict[tuple[str, str], tuple[str, ...]] = {}
    for key, sharers in purses.items():
        spec = sharers[0].spec
        if len(sharers) > 1 and spec.budget != BudgetSpec(max_usd=None, max_calls=None):
            sharing[key] = tuple({stage.key: None for job in sharers for stage in job.plan.stages})
            if spec.action == "run":
                check_budget(spec.budget, missing_of_all(sharers), what=f"the plan of {len(sharers)} runs")
    return [replace(job, group=group, sharing=sharing.get(purse(job), ())) for job in jobs]


def purse(job: Job) -> tuple[str, str]:
    """The same for runs that spend from one budget: its caps, and the store, where the ledger lies."""
    return job.spec.budget.model_dump_json(), job.spec.store


def missing_of_all(jobs: Sequence[Job]) -> list[Stage]:
    """Those of several runs on one store, each once."""
    store = Store(Path(jobs[0].spec.store).expanduser())
    stages = {stage.key: stage for job in jobs for stage in job.plan.stages}
    made = {key: store.is_done(stage) for key, stage in stages.items()}
    to_do = {stage.key for job in jobs for stage in missing(job.plan, lambda stage: made[stage.key])}
    return [stage for key, stage in stages.items() if key in to_do]


def check_store(store: str) -> None:
    place = Path(store).expanduser()
    for path in (place, *place.parents):
        if path.exists():
            if path.is_dir():
                return
            raise SpecError(f"store={store}: {path} is a file; set store to a folder")


@dataclass(frozen=True)
class Begun:
    """A run that may be carried out: where its stages lie and start, what is missing, what workers hear."""

    job: Job
    store: Store
    launcher: Launcher
    to_do: Sequence[Stage]
    settings: str


def begun(
    job: Job,
    folder: Path,
    *,
    store: Store | None = None,
    launcher: Launcher | None = None,
) -> Begun:
    """SpecError or BudgetError where the budget or the keys of the run's endpoints do not suffice.

    `folder` takes what workers write about the run. Runs may share `store` and `launcher`.
    """
    from alpacafarm.pipeline.budget import check_budget, check_keys
    from alpacafarm.worker import Settings

    spec, told = job.spec, compose.anywhere(job.spec)
    settings = Settings(
        cluster=spec.cluster,
        tracking=spec.tracking.model_copy(update={"group": spec.tracking.group or job.group}),
        run_name=spec.name,
        run_folder=str(folder.resolve()),
        store=told["store"],
        api=spec.api.model_copy(update={"prices": told["api"]["prices"]}),
        budget=spec.budget,
        stages=[*(job.sharing or (stage.key for stage in job.plan.stages))],
    )
    launcher = launcher or job.launcher(spec.cluster, job.world)
    store = store or Store(Path(spec.store).expanduser())
    to_do = missing(job.plan, store.find)
    check_budget(spec.budget, to_do)
    check_keys(spec.api, to_do)
    return Begun(job, store, launcher, to_do, settings.model_dump_json(indent=1))


def perform(job: Job, folder: Path, stages: Stages | None = None) -> RunReport:
    """Executes the plan; `folder` then has spec.json, overrides.json, result.json and report.html.

    Where it fails there is failure.json instead of the last two. `stages` hands over the plan's stages where
    they are made together with those of other runs.
    """
    from alpacafarm.data.rows import write_text
    from alpacafarm.report.collect import run_report
    from alpacafarm.report.render import write_report

    started, spec = time.perf_counter(), job.spec
    run_folder.begin(folder, spec_json(spec), job.overrides)
    try:
        done = (stages or alone)(job, folder)
        report = run_report(spec, job.plan, done, time.perf_counter() - started)
    except (AlpacaFarmError, OSError) as error:
        run_folder.note_failure(folder, str(error), waits=isinstance(error, NeedsLabels))
        raise
    write_report(folder / run_folder.REPORT, report)
    write_text(folder / run_folder.RESULT, report.result.to_json() + "\n")
    return report


def alone(job: Job, folder: Path) -> Sequence[Done]:
    """The stages of a run that shares nothing but its store with others."""
    from alpacafarm.pipeline.execute import execute

    run = begun(job, folder)
    return execute(job.plan, run.store, run.launcher, run.settings)


def finished(job: Job, folder: Path) -> Result | None:
    """The result that the folder holds, if it is that of the job's stages; None for a damaged one."""
    try:
        found = run_folder.read(folder).result
    except ValueError:
        return None
    last = job.plan.scores or job.plan.candidate
    return found if found and last.key in {stage.key for stage in found.stages} else None


def exit_code(codes: Sequence[int]) -> int:
    """Of several runs' failures: the first's. That some wait for people counts where nothing else failed."""
    failed = [code for code in codes if code != NeedsLabels.exit_code]
    return [*failed, *codes, 0][0]


def spec_json(spec: RunSpec) -> str:
    """The content of spec.json: fed back it repeats the run from any working directory."""
    return json.dumps(compose.anywhere(spec), indent=1) + "\n"


def not_written(error: OSError, places: str) -> str:
    """`places` are the keys that say where to write, with their values."""
    return (
        f"the disk refuses: {error}; what was made is kept: see that {places} can be written and that there "
        "is space, or set others, and give the command again"
    )


@contextmanager
def noted(problems: list[str]) -> Iterator[None]:
    """Adds the lines of a SpecError to `problems` instead of raising it."""
    try:
        yield
    except SpecError as error:
        problems += str(error).split("\n")


def refuse(problems: Sequence[str]) -> None:
    if problems:
        raise SpecError("\n".join(dict.fromkeys(problems)))
