"""A sweep (`-m`): the stages of all its runs, each made once and several at the same time; one table of all.

Hydra makes the jobs and their folders. Its basic launcher is replaced by `Launcher` here, which knows what
the runs have in common; `hydra/launcher=submitit_slurm` and other launchers perform the runs on their own,
and locks in the store let these share stages.
"""

from __future__ import annotations

import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hydra._internal.config_loader_impl import get_overrides_dirname
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.plugins import launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from alpacafarm.commandline import Composed, Composer, apart, parsed
from alpacafarm.cost.fit import side_by_side
from alpacafarm.errors import AlpacaFarmError, SpecError
from alpacafarm.job import Begun, Job, Stages, begun, finished, in_common

if TYPE_CHECKING:
    from alpacafarm.artifacts.store import Store
    from alpacafarm.pipeline.execute import Done
    from alpacafarm.pipeline.schedule import AtOnce
    from alpacafarm.ports import Launcher as Site
    from alpacafarm.stage import Stage

log = logging.getLogger(__name__)

CORE = "hydra._internal.core_plugins"
GROUP_CHARACTERS = 128  # Weights & Biases takes no more


def install(jobs: Sequence[Job]) -> None:
    """Puts `Launcher` in the place of Hydra's basic one. `jobs` are those of the command line, in order."""
    Launcher.known = tuple(jobs)
    plugins: dict[str, Any] = Plugins.instance().class_name_to_class
    plugins[f"{CORE}.basic_launcher.BasicLauncher"] = Launcher
    # It would compose every job once more, to see whether it can: each has been checked.
    plugins[f"{CORE}.basic_sweeper.BasicSweeper"].validate_batch_is_legal = lambda sweeper, batch: None


def way_on() -> str:
    """The command that goes on with what this process has begun."""
    if Launcher.folder is None:
        return "the same command"
    return f"python -m alpacafarm.run {shlex.quote(f'resume={Launcher.folder}')}"


class Launcher(launcher.Launcher):
    """Performs runs in order, while the stages of all are made. Keeps nothing of a run that has ended."""

    known: ClassVar[Sequence[Job]] = ()
    folder: ClassVar[Path | None] = None  # of the sweep that this process performs

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.context, self.config = hydra_context, config
        self.task: Callable[..., None] = task_function

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        setup_globals()
        self._log_as_hydra()
        folder = Launcher.folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        known = [job for number in numbers if (job := self._known(number))]
        jobs: Sequence[Job | None] = in_common(known, group=str(folder)[-GROUP_CHARACTERS:])
        jobs = jobs if len(jobs) == len(numbers) else [None] * len(numbers)
        self.composed = Composer(job_overrides, self._compose)
        self._check_folders(job_overrides, numbers)
        ended = []
        with Comparison(folder) as comparison, together([job for job in jobs if job], folder) as stages:
            own = apart(job_overrides)
            for number, overrides, job, differing in zip(numbers, job_overrides, jobs, own, strict=True):
                log.info("run %d: %s", number, " ".join(differing))
                ended.append(self._run(number, overrides, job, stages))
                comparison.update()
        print(f"Sweep: {folder.resolve() / 'sweep.html'}")
        return ended

    def _known(self, number: int) -> Job | None:
        """The job that was checked before; none of a sweeper that makes up its jobs as it goes."""
        is_basic = str(self.config.hydra.sweeper._target_).endswith(".BasicSweeper")
        return self.known[number] if is_basic and number < len(self.known) else None

    def _run(
        self, number: int, overrides: Sequence[str], job: Job | None, stages: Stages | None
    ) -> JobReturn:
        config = self._config(number, overrides)
        folder = Path(str(config.hydra.sweep.dir), str(config.hydra.sweep.subdir))
        if job and finished(job, folder):
            log.info("run %d has its result: %s", number, folder)
            return JobReturn(status=JobStatus.COMPLETED)
        ended = run_job(
            hydra_context=self.context,
            task_function=partial(self.task, job=job, stages=stages),
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        self._log_as_hydra()
        ended.cfg = ended.hydra_cfg = None  # of a hundred runs they would fill the memory
        return ended

    def _config(self, number: int, overrides: Sequence[str]) -> DictConfig:
        """It holds until the next."""
        config, _ = self.composed(overrides)
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.overrides.task = list(overrides)
            config.hydra.job.id = config.hydra.job.num = number
            config.hydra.job.override_dirname = get_overrides_dirname(
                parsed(overrides), **config.hydra.job.config.override_dirname
            )
        return config

    def _check_folders(self, job_overrides: Sequence[Sequence[str]], numbers: Sequence[int]) -> None:
        """SpecError where two runs would write into one folder."""
        told = str(OmegaConf.to_container(self.config.hydra.sweep, resolve=False))
        if "hydra.job.num" in told or "hydra.job.id" in told:
            return
        first: dict[str, int] = {}
        for number, overrides in zip(numbers, job_overrides, strict=True):
            sweep = self._config(number, overrides).hydra.sweep
            folder = os.path.normpath(Path(str(sweep.dir), str(sweep.subdir)))
            if first.setdefault(folder, number) != number:
                raise SpecError(
                    f"hydra.sweep.subdir={sweep.subdir}: {folder} is the folder of run {first[folder]} and "
                    f"of run {number}; set it to one for each, such as '${{hydra.job.num}}'"
                )

    def _compose(self, overrides: Sequence[str]) -> Composed:
        return self.context.config_loader.load_sweep_config(self.config, list(overrides)), []

    def _log_as_hydra(self) -> None:
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)


class Comparison:
    """The sweep's table. Written after a run where that takes a small part of the time, and in the end."""

    SHARE = 0.1  # of the time

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.due = 0.0

    def __enter__(self) -> Comparison:
        return self

    def __exit__(self, *_: object) -> None:
        compare(self.folder)

    def update(self) -> None:
        started = time.monotonic()
        if started >= self.due:
            compare(self.folder)
            ended = time.monotonic()
            self.due = ended + (ended - started) / self.SHARE


def compare(folder: Path) -> None:
    from filelock import FileLock

    from alpacafarm.report import comparison
    from alpacafarm.report.folder import read_or_damaged

    # Runs may be jobs of their own: who is last has read what all others wrote before.
    with FileLock(folder / ".sweep.lock"):
        comparison.write(folder, "sweep", [folder], read_or_damaged)


@contextmanager
def together(jobs: Sequence[Job], folder: Path) -> Iterator[Stages | None]:
    """Makes the stages of all jobs while the block runs; what it yields hands a job its own.

    None, and each run makes its own, where jobs differ in store or cluster or there is no room for two
    stages.
    """
    todo = [job for job in jobs if job.spec.action == "run"]
    places = {(job.spec.store, job.spec.cluster.model_dump_json(), job.world) for job in todo}
    site = todo[0].launcher(todo[0].spec.cluster, todo[0].world) if len(places) == 1 else None
    if site is None or site.room < 2 or len(todo) < 2:
        yield None
        return
    from alpacafarm.artifacts.store import Store
    from alpacafarm.pipeline.execute import end, make
    from alpacafarm.pipeline.schedule import AtOnce, rows_first

    store = Store(Path(todo[0].spec.store).expanduser())
    shared = Shared([(job, attempted(job, folder, store, site)) for job in todo])
    stages = AtOnce(
        rows_first([*shared.stages.values()]),
        lambda stage: make(stage, store, site, shared.owners[stage.key].settings),
        most=shared.room(site),
        stop=partial(end, store, site),
    )
    with stages.running() as making:
        yield partial(shared.of, making)


def attempted(job: Job, folder: Path, store: Store, site: Site) -> Begun | AlpacaFarmError:
    try:
        return begun(job, folder, store=store, launcher=site)
    except AlpacaFarmError as error:
        return error


class Shared:
    """The stages that several runs need, each once. The first run that needs one is told that it was made."""

    def __init__(self, runs: Sequence[tuple[Job, Begun | AlpacaFarmError]]) -> None:
        self.runs = {job.overrides: run for job, run in runs}
        self.stages: dict[str, Stage] = {}
        self.owners: dict[str, Begun] = {}
        for run in (run for run in self.runs.values() if isinstance(run, Begun)):
            for stage in run.to_do:
                self.stages.setdefault(stage.key, stage)
                self.owners.setdefault(stage.key, run)
        self.told: set[str] = set()

    def room(self, site: Site) -> int:
        """For how many stages at once: what the site says, of it what the memory suffices for."""
        found = [site.room]
        for run in {id(run): run for run in self.owners.values()}.values():
            spec = run.job.spec
            if spec.cluster.at_once is None:
                own = [stage for key, stage in self.stages.items() if self.owners[key] is run]
                found += filter(None, [side_by_side(spec, own, run.job.world)])
        return min(found)

    def of(self, making: AtOnce[Done], job: Job, folder: Path) -> Sequence[Done]:
        """The stages of one run once they are made; raises what one of them failed by."""
        from alpacafarm.pipeline.execute import with_reused

        run = self.runs[job.overrides]
        if isinstance(run, AlpacaFarmError):
            raise run
        found = {stage.key: making.made(stage) for stage in run.to_do}
        for key in found.keys() & self.told:
            found[key] = replace(found[key], state="reused", seconds=0.0)
        self.told |= found.keys()
        return with_reused(job.plan, run.store, found)
