"""The entry point: `python -m alpacafarm.run method=ppo feedback=sim kl_coef=0.0067`.

Composes the config (Hydra), validates it (pydantic), plans the stages, executes what is missing and reports.
Nothing here imports torch: a wrong key, `action=plan` and `--help` answer at once.
"""

import itertools
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from alpacafarm import compose, lookup
from alpacafarm.compose import conf_dir
from alpacafarm.errors import AlpacaFarmError, SpecError
from alpacafarm.job import Job, check_store, checked, exit_code, not_written, noted, perform, refuse

INTERRUPTED = "interrupted; what was made is kept, the same command goes on"
failures: list[int] = []  # exit codes of the jobs of this process; one that fails does not end a sweep


def main() -> None:
    """Runs and exits with the code of the contract: 0, 1, 2, 3 or 130."""
    settle()
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
        print(not_written(error, "hydra.run.dir"), file=sys.stderr)
        sys.exit(AlpacaFarmError.exit_code)
    except KeyboardInterrupt:
        print(INTERRUPTED, file=sys.stderr)
        sys.exit(130)
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
    arguments = with_searchpath(arguments)
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
    """One job, called by Hydra. After each job of a sweep its folder compares the runs so far."""
    job = HydraConfig.get()
    folder = Path(job.runtime.output_dir)
    with told(cfg.store, folder):
        found = asked(cfg, job.overrides.task, list(job.runtime.choices))
        if show_only([found]):
            return
        assert isinstance(found, Job)
        report = perform(found, folder)
        from alpacafarm.report.table import show

        show(report.result, report.samples, reading=report.reading, report=str(folder / "report.html"))
    if job.mode is RunMode.MULTIRUN:
        from alpacafarm.report import comparison

        with told(cfg.store, folder):
            comparison.write(Path(job.sweep.dir), "sweep", [Path(job.sweep.dir)])


@contextmanager
def told(store: str, folder: Path) -> Iterator[None]:
    """Prints an error that a user can cause, and notes its exit code."""
    try:
        yield
    except AlpacaFarmError as error:  # told here: Hydra adds words of its own to what it passes on
        print(error, file=sys.stderr)
        failures.append(error.exit_code)
    except OSError as error:  # of the store or the run's folder: stages word their own
        print(not_written(error, f"store={store} and hydra.run.dir={folder}"), file=sys.stderr)
        failures.append(AlpacaFarmError.exit_code)


def prepared(cfg: DictConfig, overrides: Sequence[str], choices: Sequence[str]) -> Job:
    """The spec and its plan. `choices` are the config's groups. SpecError lists all that is wrong."""
    return checked(compose.parse(compose.raw_config(cfg, overrides, choices)), overrides)


# What Hydra will do, asked before it does it


def over_a_saved_spec(arguments: Sequence[str]) -> list[str]:
    """With `spec=FILE`, Hydra's `++` on nested keys: it does not know the groups of the file."""
    if not any(a.startswith("spec=") for a in arguments):
        return list(arguments)
    nested = re.compile(r"(?!hydra\.)\w+\.")
    return [f"++{a}" if nested.match(a) else a for a in arguments]


def with_searchpath(arguments: Sequence[str]) -> list[str]:
    """`--config-dir DIR`, the user's own groups, as the override that Hydra's composition takes for it.

    SpecError where there is no such folder.
    """
    flag = re.compile(r"(?:--config-dir|-cd)(?:=(.*))?", re.DOTALL)
    kept: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        found = flag.fullmatch(argument)
        if found is None:
            kept.append(argument)
            continue
        place = next(rest, "") if found.group(1) is None else found.group(1)
        if not place or not Path(place).is_dir():
            raise SpecError(
                f"--config-dir={place}: there is no such folder; name one that holds groups, such as "
                "conf with conf/method/NAME.yaml"
            )
        url = f"file://{Path(place).resolve()}".replace("\\", "\\\\").replace("'", "\\'")
        kept.append(f"hydra.searchpath=['{url}']")
    return kept


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
