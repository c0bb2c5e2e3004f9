"""What Hydra will do with a command line, asked before it does it: its jobs and their configs."""

import itertools
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    MissingConfigException,
    OverrideParseException,
)
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import (
    InterpolationKeyError,
    OmegaConfBaseException,
    UnsupportedInterpolationType,
)
from yaml import YAMLError

from alpacafarm import compose, lookup
from alpacafarm.compose import conf_dir
from alpacafarm.errors import SpecError

MULTIRUN = ("-m", "--multirun")
MODES = (*MULTIRUN, "-r", "--run", "-c", "--cfg", "-i", "--info", "-sc", "--shell-completion")
PLACES = ("run.dir", "sweep.dir", "sweep.subdir")  # of hydra

Composed = tuple[DictConfig, list[str]]  # a config, and the groups that it has


def over_a_saved_spec(arguments: Sequence[str]) -> list[str]:
    """With `spec=FILE`, Hydra's `++` on nested keys: it does not know the groups of the file."""
    if not any(a.startswith("spec=") for a in arguments):
        return list(arguments)
    nested = re.compile(r"(?!hydra\.)\w+\.")
    return [f"++{a}" if nested.match(a) else a for a in arguments]


def multirun_first(arguments: Sequence[str]) -> list[str]:
    """With `-m` in front: Hydra refuses overrides on both sides of it."""
    return sorted(arguments, key=lambda argument: argument not in MULTIRUN)


def check_modes(arguments: Sequence[str]) -> None:
    """SpecError for flags of Hydra's that exclude each other."""
    given = [a for a in dict.fromkeys(a.partition("=")[0] for a in arguments) if a in MODES]
    if len(given) > 1:
        raise SpecError(
            f"{' '.join(given)}: Hydra takes one of these at a time; leave out all but one (resume=FOLDER "
            "stands for -m)"
        )


def resumed(arguments: Sequence[str]) -> list[str]:
    """For `resume=FOLDER` the command line of the sweep in the folder, else `arguments`.

    SpecError where the folder holds no sweep, or where more is asked for.
    """
    asked = [a.partition("=")[2] for a in arguments if a.startswith("resume=")]
    if not asked:
        return list(arguments)
    folder = Path(asked[-1])
    try:
        task, settings, groups = told_overrides(folder / "multirun.yaml")
    except (OSError, ValueError, YAMLError) as error:
        raise SpecError(
            f"resume={folder}: must be the folder of a sweep, such as "
            "multirun/ppo/2026-01-31/12-00-00-000000, with "
            f"the multirun.yaml that Hydra left there ({' '.join(str(error).split())}); a single run goes on "
            "by its own command, and a sweep by its own with hydra.sweep.dir=FOLDER"
        ) from None
    more = [a for a in arguments if not a.startswith("resume=") and a not in MULTIRUN]
    overrides = [a for a in more if "=" in a and not a.startswith("-")]
    if overrides:
        raise SpecError(f"resume={folder}: goes on with the sweep as it was; leave out {' '.join(overrides)}")
    kept = [text for text in settings if text.partition("=")[0] not in ("hydra.sweep.dir", "hydra.mode")]
    places = [] if any(a.startswith(("--config-dir", "-cd")) for a in more) else groups
    more += [f"--config-dir={place}" for place in places]
    return ["-m", *more, *task, *kept, f"hydra.sweep.dir={quoted(str(folder))}"]


def told_overrides(multirun: Path) -> tuple[list[str], list[str], list[str]]:
    """The overrides of a sweep's jobs, those of Hydra's own keys, and the user's folder of groups, if any.

    ValueError where there are none.
    """
    content = yaml.safe_load(multirun.read_text(encoding="utf-8"))
    try:
        told, sources = content["hydra"]["overrides"], content["hydra"]["runtime"]["config_sources"]
        groups = [source["path"] for source in sources if source["provider"] == "command-line"]
        lists: tuple[list[str], list[str], list[str]] = told["task"], told["hydra"], groups
    except (TypeError, KeyError):
        raise ValueError(
            "it tells no hydra.overrides.task, hydra.overrides.hydra and hydra.runtime.config_sources"
        ) from None
    if not all(isinstance(each, list) and all(isinstance(text, str) for text in each) for each in lists):
        raise ValueError("its hydra.overrides are no lists of text")
    return lists


def quoted(value: str) -> str:
    """As Hydra's grammar takes any text."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


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
        kept.append(f"hydra.searchpath=[{quoted(f'file://{Path(place).resolve()}')}]")
    return kept


def configs() -> initialize_config_dir:
    """Hydra's composition outside of `hydra.main`, as a context."""
    return initialize_config_dir(str(conf_dir()), version_base="1.3")


def jobs(arguments: Sequence[str]) -> list[list[str]]:
    """The overrides of each job: one, or with `-m` the product of all sweeps, the config's own included."""
    overrides = [a for a in arguments if not a.startswith("-")]
    if len(overrides) == len(arguments):
        return [overrides]
    try:
        found = parsed(overrides)
    except HydraException:
        return [overrides]  # which cannot be composed either, and that is where it is worded
    plain = [str(o.input_line) for o in found if not o.is_sweep_override()]
    with suppress(HydraException):  # the same
        swept = hydra.compose("config", plain, return_hydra_config=True).hydra.sweeper.params or {}
        found = parsed([f"{key}={value}" for key, value in swept.items()]) + found
    return [
        list(job)
        for job in itertools.product(
            *(
                [f"{o.get_key_element()}={value}" for value in o.sweep_string_iterator()]
                if o.is_sweep_override()
                else [str(o.input_line)]
                for o in found
            )
        )
    ]


class Composer:
    """Composes the jobs of one command line, in turn, by `compose`.

    Where all jobs set the same single keys, not groups, these are set in the config of the first: as Hydra
    would do it, without the fifth of a second that composing takes. The config that a call returns holds
    until the next.
    """

    def __init__(self, jobs: Sequence[Sequence[str]], compose: Callable[[Sequence[str]], Composed]) -> None:
        self.compose = compose
        try:
            found = parsed(sorted({text for job in apart(jobs) for text in job}))
        except HydraException:  # worded by who composes
            found = []
        alike = len({frozenset(text.partition("=")[0] for text in job) for job in jobs}) == 1
        self.only_keys = bool(found) and alike and all(map(is_key, found))
        self.swept = {str(override.input_line): override for override in found}
        self.first: Composed | None = None

    def __call__(self, overrides: Sequence[str]) -> Composed:
        if self.first is None or not self.only_keys:
            self.first = self.compose(overrides)
            return self.first
        try:
            for override in (self.swept[text] for text in overrides if text in self.swept):
                OmegaConf.update(self.first[0], override.key_or_group, override.value())
        except OmegaConfBaseException:
            return self.compose(overrides)
        return self.first


def apart(jobs: Sequence[Sequence[str]]) -> list[list[str]]:
    """Of each job the overrides that not all have."""
    common = set.intersection(*map(set, jobs)) if jobs else set()
    return [[text for text in job if text not in common] for job in jobs]


def parsed(overrides: Sequence[str]) -> list[Override]:
    return OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(list(overrides))


def over_saved(overrides: Sequence[str]) -> dict[str, Any]:
    """Keys and values of overrides that stand beside `spec=FILE`. SpecError for one that leaves a key out."""
    told = parsed(overrides)
    if gone := [text for text, override in zip(overrides, told, strict=True) if override.is_delete()]:
        raise SpecError(
            f"{' '.join(gone)}: a saved spec keeps all of its keys; set KEY=null where that is allowed"
        )
    return {override.key_or_group: override.value() for override in told}


def is_key(override: Override) -> bool:
    """Whether it sets one key to a single value."""
    key = override.key_or_group
    groups = GlobalHydra.instance().config_loader()
    return (
        override.type is OverrideType.CHANGE
        and override.package is None
        and not key.startswith("hydra.")
        and not isinstance(override.value(), dict | list)
        and not groups.get_group_options(key)
    )


def composed(overrides: Sequence[str], problems: list[str]) -> Composed:
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
    problems += unknown_in_places(cfg, kept)
    choices = [name for name in cfg.hydra.runtime.choices if not name.startswith("hydra/")]
    with open_dict(cfg):
        del cfg["hydra"]
    known = [*compose.dotted(OmegaConf.to_container(cfg)), *choices]
    problems += [no_such_key(override, known) for override in unknown]
    return cfg, choices


def unknown_in_places(cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """A line for each folder of Hydra's that is set to something which refers to nothing."""
    found = []
    keys = {override.partition("=")[0].lstrip("+") for override in overrides}
    for place in (place for place in PLACES if f"hydra.{place}" in keys):
        try:
            OmegaConf.select(cfg.hydra, place)
        except (InterpolationKeyError, UnsupportedInterpolationType) as error:
            told = str(error).splitlines()[0]
            found.append(
                f"hydra.{place}: cannot be read ({told}); put a key of the run in, such as ${{name}}"
            )
        except OmegaConfBaseException:
            pass  # what Hydra knows when the job starts, its number for example
    return found


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
