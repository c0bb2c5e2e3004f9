import json
import subprocess

import pytest

import alpacafarm
from alpacafarm.artifacts import manifest
from alpacafarm.artifacts.manifest import Outcome
from tests.unit.artifacts.stored import make, stage

CONTRACT = {"kind", "key", "stage", "params", "inputs", "seed", "versions", "started", "seconds", "files"}
CONTRACT |= {"throughput", "cost"}


def test_artifact_json_has_the_keys_that_others_rely_on(store):
    with store.claim(stage(beta=0.1)) as claim:
        outcome = Outcome("2026-01-01T00:00:00+00:00", 3.5, {"tokens_per_second": 10.0}, {"price_usd": 0.1})
        outcome.write(claim.folder)
        made = store.publish(stage(beta=0.1), claim.folder)
    told = json.loads((made.path / "artifact.json").read_text())
    assert set(told) >= CONTRACT
    assert told["kind"] == "policy"
    assert told["key"] == made.path.name
    assert told["params"] == {"beta": 0.1}
    assert told["inputs"] == stage().identity["inputs"]
    assert told["started"] == "2026-01-01T00:00:00+00:00"
    assert told["seconds"] == 3.5
    assert told["throughput"] == {"tokens_per_second": 10.0}
    assert told["cost"] == {"price_usd": 0.1}
    assert told["versions"]["alpacafarm"] == alpacafarm.__version__


def test_reading_gives_back_what_was_written(store):
    made = make(store, stage(beta=0.1))
    record = manifest.read(made.path)
    before = (made.path / "artifact.json").read_text()
    manifest.write(record)
    assert (made.path / "artifact.json").read_text() == before


def test_what_json_lacks_becomes_null_and_never_loses_a_finished_stage(store):
    with store.claim(stage()) as claim:
        facts = {"loss": float("nan"), "span": (1.0, float("inf"))}
        made = store.publish(stage(), claim.folder, Outcome(facts=facts))
    assert made.facts == {"loss": None, "span": [1.0, None]}


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A git checkout with one commit that pretends to be the one this code runs from."""
    (tmp_path / "alpacafarm").mkdir()
    (tmp_path / "alpacafarm" / "__init__.py").write_text("")
    monkeypatch.setattr(alpacafarm, "__file__", str(tmp_path / "alpacafarm" / "__init__.py"))
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, "/dev/null")
    manifest.commit.cache_clear()
    yield tmp_path
    manifest.commit.cache_clear()


def git(folder, *arguments):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_the_commit_is_the_checkouts_and_says_when_files_differ(checkout):
    assert manifest.commit() is None
    git(checkout, "init")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    manifest.commit.cache_clear()
    assert manifest.commit() == git(checkout, "rev-parse", "HEAD")
    (checkout / "alpacafarm" / "__init__.py").write_text("changed")
    manifest.commit.cache_clear()
    assert manifest.commit() == git(checkout, "rev-parse", "HEAD") + "-dirty"


def test_an_environment_inside_somebody_elses_checkout_has_no_commit(checkout, monkeypatch):
    git(checkout, "init")
    git(checkout, "add", ".")
    git(checkout, "commit", "-m", "first")
    inside = checkout / ".venv" / "alpacafarm" / "__init__.py"
    inside.parent.mkdir(parents=True)
    monkeypatch.setattr(alpacafarm, "__file__", str(inside))
    assert manifest.commit() is None
