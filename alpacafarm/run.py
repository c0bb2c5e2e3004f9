"""The entry point: `python -m alpacafarm.run method=ppo feedback=sim kl_coef=0.0067`.

Composes the config (Hydra), validates it (pydantic), plans the stages, executes what is missing and reports.
Nothing here imports torch: a wrong key, `action=plan` and `--help` answer at once.
"""

import itertools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf, open_dict

from alpacafarm import compose, lookup
from alpacafarm.errors import AlpacaFarmError, SpecError
from alpacafarm.pipeline.devices import process_count
from alpacafarm.pipeline.plan import Plan, make_plan
from alpacafarm.spec.run import RunSpec
from launchers import LauncherClass, load

failures: list[int] = []  # exit codes of the jobs of this process; one that fails does not end a sweep


@dataclass(frozen=True)
class Job:
    """One run, checked as far as it can be without executing it."""

    spec: RunSpec
    plan: Plan
    world: int
    launcher: LauncherClass


def conf_dir() -> Path:
    """`conf/` of the checkout, or the copy that an installed wheel carries inside the package."""
    package = Path(__file__).parent
    beside = package.parent / "conf"
    return beside if (beside / "config.yaml").is_file() else package / "conf"


def main() -> None:
    """Runs and exits with the code of the contract: 0, 1, 2, 3 or 130."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then raises its errors, and we word them
    # How long a waiting torch thread spins before it sleeps. The default suits an idle machine only: beside
    # one busy process two threads trained 10 times slower, with this 3 times, and no slower without it.
    os.environ.setdefault("GOMP_SPINCOUNT", "4000")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.argv[1:] = over_a_saved_spec(sys.argv[1:])
    try:
        if not show_only(check(sys.argv[1:])):
            hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="config")(task)()
    except AlpacaFarmError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except HydraException as error:
        print(one_line(error), file=sys.stderr)
        sys.exit(SpecError.exit_code)
    except OSError as error:  # of the run's folder, which Hydra makes
        print(not_written(error), file=sys.stderr)
        sys.exit(AlpacaFarmError.exit_code)
    except KeyboardInterrupt:
        print("interrupted; what was made is kept, the same command goes on", file=sys.stderr)
        sys.exit(130)
    sys.exit(failures[0] if failures else 0)


def check(arguments: Sequence[str]) -> list[Job | Path]:
    """The jobs of a command line, for `action=status` its store. SpecError with what is wrong in any of them.

    Nothing for Hydra's own flags: they (`--help`, `--cfg`, ...) run no job, or need what is not known here
    (`--config-dir`).
    """
    if {a for a in arguments if a.startswith("-")} - {"-m", "--multirun"}:
        return []
    problems: list[str] = []
    found: list[Job | Path] = []
    with configs():
        for overrides in jobs(arguments):
            with noted(problems):
                cfg, choices = composed(overrides, problems)
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

    for job in jobs:
        if isinstance(job, Job):
            show_plan(job.spec, job.plan)
        else:
            show_status(job)
    return True


def task(cfg: DictConfig) -> None:
    """One job, called by Hydra."""
    job = HydraConfig.get()
    try:
        found = asked(cfg, job.overrides.task, list(job.runtime.choices))
        if not show_only([found]):
            assert isinstance(found, Job)
            perform(found, Path(job.runtime.output_dir))
    except AlpacaFarmError as error:  # told here: Hydra adds words of its own to what it passes on
        print(error, file=sys.stderr)
        failures.append(error.exit_code)
    except OSError as error:  # of the store or the run's folder: stages word their own
        print(not_written(error, cfg.store, job.runtime.output_dir), file=sys.stderr)
        failures.append(AlpacaFarmError.exit_code)


def not_written(error: OSError, store: str | None = None, folder: str | None = None) -> str:
    places = f"store={store} and hydra.run.dir={folder}" if store else "hydra.run.dir"
    return (
        f"the disk refuses: {error}; what was made is kept: see that {places} can be written and that there "
        "is space, or set others, and give the command again"
    )


def prepared(cfg: DictConfig, overrides: Sequence[str], choices: Sequence[str]) -> Job:
    """The spec and its plan. `choices` are the config's groups. SpecError lists all that is wrong."""
    spec = compose.parse(compose.raw_config(cfg, overrides, choices))
    problems: list[str] = []
    with noted(problems):
        check_store(spec.store)
    with noted(problems):
        plan = make_plan(spec, eval_asked=any(o.startswith("eval=") for o in overrides))
    with noted(problems):
        world = process_count(spec)
    with noted(problems):
        launcher = load(spec.cluster.launcher)
    refuse(problems)
    return Job(spec, plan, world, launcher)


def check_store(store: str) -> None:
    place = Path(store).expanduser()
    for path in (place, *place.parents):
        if path.exists():
            if path.is_dir():
                return
            raise SpecError(f"store={store}: {path} is a file; set store to a folder")


def perform(job: Job, folder: Path) -> None:
    """Executes the plan and writes spec.json, result.json and report.html into `folder`."""
    from alpacafarm.artifacts.store import Store
    from alpacafarm.data.rows import write_text
    from alpacafarm.pipeline.execute import execute
    from alpacafarm.report.collect import run_report
    from alpacafarm.report.render import write_report
    from alpacafarm.report.table import show
    from alpacafarm.worker import Settings

    started, spec = time.perf_counter(), job.spec
    write_text(folder / "spec.json", json.dumps(compose.anywhere(spec), indent=1) + "\n")
    settings = Settings(
        cluster=spec.cluster, tracking=spec.tracking, run_name=spec.name, run_folder=str(folder.resolve())
    )
    launcher = job.launcher(spec.cluster, job.world)
    store = Store(Path(spec.store).expanduser())
    done = execute(job.plan, store, launcher, settings.model_dump_json(indent=1))
    report = run_report(spec, job.plan, done, time.perf_counter() - started)
    write_text(folder / "result.json", report.result.to_json() + "\n")
    write_report(folder / "report.html", report)
    show(report.result, report.samples, reading=report.reading, report=str(folder / "report.html"))


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


# What Hydra will do, asked before it does it


def over_a_saved_spec(arguments: Sequence[str]) -> list[str]:
    """With `spec=FILE`, Hydra's `++` on nested keys: it does not know the groups of the file."""
    if not any(a.startswith("spec=") for a in arguments):
        return list(arguments)
    nested = re.compile(r"(?!hydra\.)\w+\.")
    return [f"++{a}" if nested.match(a) else a for a in arguments]


def configs() -> initialize_config_dir:
    """Hydra's composition outside of `hydra.main`, as a context."""
    return initialize_config_dir(str(conf_dir()), version_base="1.3")


def jobs(arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of each job: one, or with `-m` the product of all sweeps, the config's own included."""
    overrides = [a for a in arguments if not a.startswith("-")]
    if len(overrides) == len(arguments):
        return [overrides]
    parser = OverridesParser.create(GlobalHydra.instance().config_loader())
    try:
        plain = [str(o.input_line) for o in parser.parse_overrides(overrides) if not o.is_sweep_override()]
        swept = hydra.compose("config", plain, return_hydra_config=True).hydra.sweeper.params or {}
        parsed = parser.parse_overrides([*(f"{key}={value}" for key, value in swept.items()), *overrides])
    except HydraException:
        return [overrides]  # which cannot be composed either, and that is where it is worded
    return [
        list(job)
        for job in itertools.product(
            *(
                [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
                if o.is_sweep_override()
                else [str(o.input_line)]
                for o in parsed
            )
        )
    ]


def composed(overrides: Sequence[str], problems: list[str]) -> tuple[DictConfig, list[str]]:
    """The config of one job and its groups. Keys that do not exist go to `problems` and are left out."""
    kept = list(overrides)
    unknown: list[str] = []
    while True:
        try:
            cfg = hydra.compose("config", kept, return_hydra_config=True)
            break
        except ValueError as error:  # Hydra's, of a group that is set to null; it has no class of its own
            raise SpecError(no_such_choice(kept) or str(error)) from None
        except ConfigCompositionException as error:
            key = compose.unknown_key(str(error))
            wrong = [o for o in kept if o.split("=")[0].lstrip("+~") == key]
            if not wrong:
                problems += [no_such_key(override) for override in unknown]
                raise SpecError(one_line(error)) from None
            kept = [o for o in kept if o not in wrong]
            unknown += wrong
        except HydraException as error:
            raise SpecError(one_line(error)) from None
    choices = [name for name in cfg.hydra.runtime.choices if not name.startswith("hydra/")]
    with open_dict(cfg):
        del cfg["hydra"]
    known = [*compose.dotted(OmegaConf.to_container(cfg)), *choices]
    problems += [no_such_key(override, known) for override in unknown]
    return cfg, choices


def no_such_choice(overrides: Sequence[str]) -> str:
    """A line for each group that is set to null."""
    wrong = [o.partition("=")[0] for o in overrides if o.partition("=")[2] == "null"]
    groups = {group: GlobalHydra.instance().config_loader().get_group_options(group) for group in wrong}
    return "\n".join(
        f"{group}=null: must name one of conf/{group}; set {group}={options[0]}, "
        f"for example; known: {', '.join(sorted(options))}"
        for group, options in groups.items()
        if options
    )


def no_such_key(override: str, known: Sequence[str] = ()) -> str:
    suggestion = lookup.suggestion(override.split("=")[0], known)
    return f"{override}: there is no such key; {suggestion}`--cfg job` prints all keys of a run"


def one_line(error: HydraException) -> str:
    """What Hydra says of a command line, in our words where it is one of the common cases."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file and error.options:
        group, _, name = error.missing_cfg_file.rpartition("/")
        return f"{group}={name}: there is no such {group}; {lookup.choices(name, error.options)}"
    told = [line.strip() for line in str(error).splitlines() if line.strip()]
    if isinstance(error, OverrideParseException):
        return f"{error.override}: cannot be read ({told[0]}); write KEY=VALUE, odd characters in quotes"
    return "; ".join(told)


if __name__ == "__main__":
    main()
