"""Names to modules. A method, a preference source and an evaluation are modules found by their name."""

import difflib
import importlib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = Path(__file__).parent


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when something is close, else nothing."""
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def names(package: str) -> list[str]:
    """Every module of `alpacafarm.<package>`, sorted."""
    return sorted(p.stem for p in (PACKAGE / package).glob("*.py") if not p.stem.startswith("_"))


def module(package: str, name: str) -> ModuleType:
    """`alpacafarm.<package>.<name>`; ValueError with a suggestion when there is none."""
    known = names(package)
    if name not in known:
        what = {"methods": "method", "feedback": "preference source", "evals": "evaluation"}[package]
        raise ValueError(f"no {what} {name!r}{suggestion(name, known)} Known: {', '.join(known)}")
    return importlib.import_module(f"alpacafarm.{package}.{name}")


def resolve(dotted: str) -> Any:
    """The object that `package.module:attribute` names."""
    path, _, attribute = dotted.partition(":")
    return getattr(importlib.import_module(path), attribute)
