"""Names to modules. A method, a preference source and an evaluation are modules found by their name.

Those of other packages are found by the name of an entry point in the group `alpacafarm.methods` (or
`.feedback`, `.evals`), or by their own dotted name where a config says it (`_module`).
"""

import difflib
import importlib
import importlib.metadata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parent
WHAT = {"methods": "method", "feedback": "preference source", "evals": "evaluation"}


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean x?; ` when something is close, else nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?; " if found else ""


def choices(name: str, known: Iterable[str]) -> str:
    """`suggestion`, and all that is known."""
    names = sorted(known)
    return f"{suggestion(name, names)}known: {', '.join(names)}"


@cache
def entry_points(package: str) -> dict[str, str]:
    """What installed packages add to `alpacafarm.<package>`: names and dotted modules."""
    found = importlib.metadata.entry_points(group=f"alpacafarm.{package}")
    return {point.name: point.value for point in found}


def names(package: str) -> list[str]:
    """Every module of `alpacafarm.<package>` and every entry point that adds to it, sorted."""
    own = {p.stem for p in (PACKAGE / package).glob("*.py") if not p.stem.startswith("_")}
    return sorted(own | set(entry_points(package)))


def module(package: str, name: object, dotted: str | None = None) -> ModuleType:
    """The module `dotted`, else the one that `name` names; ValueError when there is none."""
    if dotted is None:
        known = names(package)
        if name not in known:
            raise ValueError(f"there is no such {WHAT[package]}; {choices(str(name), known)}")
        return importlib.import_module(entry_points(package).get(str(name), f"alpacafarm.{package}.{name}"))
    try:
        found = importlib.import_module(dotted)
    except Exception as error:  # whatever a module of the user's raises, its name is needed
        raise ValueError(
            f"cannot be imported ({type(error).__name__}: {error}); "
            "name a module on PYTHONPATH or in the working directory"
        ) from error
    absent = [part for part in ("Spec", "plan") if not hasattr(found, part)]
    if absent:
        raise ValueError(f"has no {' and no '.join(absent)}; a {WHAT[package]} defines Spec and plan")
    return found


def resolve(dotted: str) -> Any:
    """The object that `package.module:attribute` names."""
    path, _, attribute = dotted.partition(":")
    return getattr(importlib.import_module(path), attribute)
