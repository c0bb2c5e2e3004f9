"""The entry point: `python -m alpacafarm.run method=ppo feedback=sim kl_coef=0.0067`.

Composes the config (Hydra), validates it (pydantic), plans the stages, executes what is missing and reports.
Nothing here imports torch: a wrong key, `action=plan` and `--help` answer at once.
"""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig

from alpacafarm import commandline, compose, sweep
from alpacafarm.compose import conf_dir
from alpacafarm.errors import AlpacaFarmError, SpecError
from alpacafarm.job import (
    Job,
    Stages,
    check_store,
    checked,
    exit_code,
    not_written,
    noted,
    perform,
    refuse,
)

INTERRUPTED = "interrupted; what was made is kept, {} goes on"
failures: list[int] = []  # exit codes of the jobs of this process; one that fails does not end a sweep
here = os.getpid()


def main() -> None:
    """Runs and exits with the code of the contract: 0, 1, 2, 3 or 130."""
    settle()
    try:
        asked = commandline.resumed(commandline.multirun_first(sys.argv[1:]))
        sys.argv[1:] = commandline.over_a_saved_spec(asked)
        found = check(sys.argv[1:])
        if not show_only(found):
            sweep.install([job for job in found if isinstance(job, Job)])
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    except AlpacaFarmError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except HydraException as error:
        print(commandline.one_line(error), file=sys.stderr)
        sys.exit(SpecError.exit_code)
    except BrokenPipeError:  # who reads, `head` for example, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:  # of the run's folder, which Hydra makes
        place = "hydra.sweep.dir" if "-m" in sys.argv else "hydra.run.dir"
        print(not_written(error, place), file=sys.stderr)
        sys.exit(AlpacaFarmError.exit_code)
    except KeyboardInterrupt:
        print(INTERRUPTED.format(sweep.way_on()), file=sys.stderr)
        sys.exit(130)
    if failures and sweep.Launcher.folder:
        print(f"runs without a result: {len(failures)}; {sweep.way_on()} goes on", file=sys.stderr)
    sys.exit(exit_code(failures))


def settle() -> None:
    """What a process that performs runs needs before it loads torch; SIGTERM unwinds like Ctrl-C."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, and we word them
    # How long a waiting torch thread spins before it sleeps. The default suits an idle machine only: beside
    # one busy process two threads trained 10 times slower, with this 3 times, and no slower without it.
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")
    signal.signal(signal.SIGTERM, signal.default_int_handler)


def check(arguments: Sequence[str]) -> list[Job | Path]:
    """The jobs of a command line, for `action=status` its store. SpecError with what is wrong in any of them.

    Nothing for Hydra's own flags (`--help`, `--cfg`, ...), which run no job.
    """
    commandline.check_modes(arguments)
    arguments = commandline.with_searchpath(arguments)
    if {a for a in arguments if a.startswith("-")} - {*commandline.MULTIRUN}:
        return []
    problems: list[str] = []
    found: list[Job | Path] = []
    with commandline.configs():
        jobs = commandline.jobs(arguments)
        composed = commandline.Composer(jobs, lambda job: commandline.composed(job, problems))
        for overrides in jobs:
            with noted(problems):
                cfg, choices = composed(overrides)
                found.append(asked(cfg, overrides, choices))
    refuse(problems)
    return found


def asked(cfg: DictConfig, overrides: Sequence[str], choices: Sequence[str]) -> Job | Path:
    """What one job is about: a run or its plan, or for `action=status` a store, which needs no method."""
    if cfg.action != "status":
        return prepared(cfg, overrides, choices)
    check_store(cfg.store)
    return Path(cfg.store).expanduser()


def show_only(jobs: Sequence[Job | Path]) -> bool:
    """Prints plans and stores where nothing else is asked for: then no run folder is made."""
    if not jobs or any(isinstance(job, Job) and job.spec.action == "run" for job in jobs):
        return False
    from alpacafarm.report.status import show_plan, show_status

    plans = [job.overrides for job in jobs if isinstance(job, Job)]
    own = iter(commandline.apart(plans))
    for number, job in enumerate(jobs):
        if isinstance(job, Job):
            differing = " ".join(next(own))
            if len(plans) > 1:
                print(f"run {number}: {differing}")
            show_plan(job.spec, job.plan)
        else:
            show_status(job)
    return True


def task(cfg: DictConfig, job: Job | None = None, stages: Stages | None = None) -> None:
    """One run, called by Hydra; one of a sweep that knows it already comes with its `job`, see there."""
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    with told(cfg.store, folder):
        found = job or asked(cfg, settings.overrides.task, list(settings.runtime.choices))
        if show_only([found]):
            return
        assert isinstance(found, Job)
        try:
            report = perform(found, folder, stages)
        finally:
            if job is None and settings.mode is RunMode.MULTIRUN:
                sweep.compare(Path(settings.sweep.dir))
        from alpacafarm.report.table import show

        show(report.result, report.samples, reading=report.reading, report=str(folder / "report.html"))


@contextmanager
def told(store: str, folder: Path) -> Iterator[None]:
    """Prints an error that a user can cause, and notes its exit code.

    Where a launcher of Hydra's has brought the run to another process the error goes back to this one.
    """
    try:
        yield
    except (
        AlpacaFarmError,
        OSError,
    ) as cause:  # an OSError of the store or the run's folder: stages word theirs
        error = (
            cause
            if isinstance(cause, AlpacaFarmError)
            else AlpacaFarmError(not_written(cause, f"store={store} and hydra.run.dir={folder}"))
        )
        if os.getpid() != here:
            raise error from cause
        print(error, file=sys.stderr)  # told here: Hydra adds words of its own to what it passes on
        failures.append(error.exit_code)


def prepared(cfg: DictConfig, overrides: Sequence[str], choices: Sequence[str]) -> Job:
    """The spec and its plan. `choices` are the config's groups. SpecError lists all that is wrong."""
    asked = commandline.over_saved(overrides) if cfg.get("spec") is not None else {}
    raw = compose.raw_config(cfg, asked, choices)
    return checked(compose.parse(raw, compose.own_folders(overrides)), overrides)


if __name__ == "__main__":
    main()
