"""Names to modules. A method, a preference source and an evaluation are modules found by their name."""

import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parent


def suggestion(name: str, known: Iterable[str]) -> str:
    """`did you mean x?; ` when something is close, else nothing."""
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean {found[0]}?; " if found else ""


def choices(name: str, known: Iterable[str]) -> str:
    """`suggestion`, and all that is known."""
    names = sorted(known)
    return f"{suggestion(name, names)}known: {', '.join(names)}"


def names(package: str) -> list[str]:
    """Every module of `alpacafarm.<package>`, sorted."""
    return sorted(p.stem for p in (PACKAGE / package).glob("*.py") if not p.stem.startswith("_"))


def module(package: str, name: object) -> ModuleType:
    """`alpacafarm.<package>.<name>`; ValueError with the known names when there is none."""
    known = names(package)
    if name not in known:
        what = {"methods": "method", "feedback": "preference source", "evals": "evaluation"}[package]
        raise ValueError(f"there is no such {what}; {choices(str(name), known)}")
    return importlib.import_module(f"alpacafarm.{package}.{name}")


def resolve(dotted: str) -> Any:
    """The object that `package.module:attribute` names."""
    path, _, attribute = dotted.partition(":")
    return getattr(importlib.import_module(path), attribute)
