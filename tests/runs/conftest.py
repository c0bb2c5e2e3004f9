"""A store for the whole session: what one test has made, the others start from."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.runs import farm


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def perform(store, tmp_path) -> Callable[..., farm.Ran]:
    """A tiny run of a method, on one plain process unless the overrides say otherwise."""
    numbers = iter(range(100))

    def performed(method: str, *overrides: str, world: bool = True) -> farm.Ran:
        asked = farm.tiny(
            method, "cluster.engine=plain", "cluster.processes=1", f"store={store}", world=world
        )
        return farm.perform(tmp_path / f"run{next(numbers)}", [*asked, *overrides])

    return performed


@pytest.fixture(scope="session")
def on_two_processes(tmp_path_factory) -> farm.Ran:
    """SFT from nothing under ZeRO-2, from the shell and undisturbed."""
    home = tmp_path_factory.mktemp("two processes")
    asked = farm.tiny("sft", "cluster=local_2proc", f"store='{home / 'store'}'", "eval=none", farm.LONG)
    return farm.by_command(home / "run", asked)
