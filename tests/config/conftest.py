"""Composes in this process what a command line would compose, and a folder of things to name in overrides."""

import json
from collections.abc import Callable

import pytest

from alpacafarm import commandline, run

Compose = Callable[..., run.Job]


@pytest.fixture
def job() -> Compose:
    """The checked job of a command line; SpecError as the user would get it.

    What does not fit into this machine is no fault of it.
    """

    def composed(*overrides: str) -> run.Job:
        problems: list[str] = []
        with commandline.configs():
            asked = commandline.over_a_saved_spec(["force=true", *overrides])
            cfg, choices = commandline.composed(asked, problems)
            run.refuse(problems)
            return run.prepared(cfg, asked, choices)

    return composed


@pytest.fixture(scope="session")
def things(tmp_path_factory) -> dict[str, str]:
    """Paths by name: a model folder, files of rows and pairs, an empty folder, a text file, a spec."""
    root = tmp_path_factory.mktemp("things")
    (root / "model").mkdir()
    (root / "model" / "config.json").write_text("{}")
    (root / "empty").mkdir()
    (root / "rows.json").write_text(json.dumps([{"instruction": "Say hi.", "input": "", "output": "Hi."}]))
    (root / "pairs.jsonl").write_text(
        json.dumps({"prompt": "Say hi.", "chosen": "Hi.", "rejected": "No."}) + "\n"
    )
    (root / "text.txt").write_text("not JSON")
    (root / "list.json").write_text("[]")
    names = ("model", "empty", "rows.json", "pairs.jsonl", "text.txt", "list.json", "nothing")
    return {name.partition(".")[0]: str(root / name) for name in names}
