"""The README's method from outside of the package: copied from there, run as it says there."""

import re
import sys
from pathlib import Path

import pytest

from alpacafarm import lookup, run
from tests.runs import farm

README = Path(__file__).parents[2] / "README.md"


def block(opening: str) -> str:
    """The first code block of README that begins so."""
    blocks: list[str] = re.findall(r"^```\w+\n(.*?)^```$", README.read_text(encoding="utf-8"), re.M | re.S)
    (found,) = (text for text in blocks if text.startswith(opening))
    return found


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """A user's folder with the two files, as the working directory."""
    module, values = block('"""foo:'), block("name: foo")
    assert len(module.splitlines()) <= 40
    assert len(values.splitlines()) <= 8
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "foo.py").write_text(module)
    (tmp_path / "conf" / "method" / "foo.yaml").write_text(values)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_readmes_method_runs_from_outside_of_the_package(home, perform):
    command = block("python -m alpacafarm.run --config-dir").split()[3:]
    shared = perform("dpo")  # what foo builds on is there
    store = f"store={shared.artifact('sft').parents[1]}"
    asked = farm.tiny("dpo", store, "cluster.engine=plain", "cluster.processes=1")
    own = [o for o in asked if not o.startswith("method=")]
    ran = farm.by_command(home / "run", [*command, *own])
    assert ran.result["method"] == "foo"
    assert ran.states["foo"] == "made"
    assert {"base", "sft", "annotate", "reference"} <= {n for n, s in ran.states.items() if s == "reused"}
    assert '"lead"' in (ran.artifact("foo") / "log.jsonl").read_text()
    again = farm.by_command(home / "again", [f"spec={ran.folder / 'spec.json'}"])
    assert set(again.states.values()) == {"reused"}


def test_a_wrong_key_of_it_is_refused_like_any_other(home, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(home), *sys.path])
    with pytest.raises(run.SpecError, match=r"method\.target=0: must be greater than 0"):
        run.check(["--config-dir", "conf", "method=foo", "method.target=0"])
    sys.modules.pop("foo", None)


def test_an_entry_point_is_a_method_by_its_name(home, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(home), *sys.path])
    monkeypatch.setattr(lookup, "entry_points", lambda package: {"fooled": "foo"})
    assert "fooled" in lookup.names("methods")
    assert lookup.module("methods", "fooled").__name__ == "foo"
    sys.modules.pop("foo", None)
