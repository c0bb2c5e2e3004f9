import json
import logging
import math
import os

import pytest

from alpacafarm.errors import SpecError
from alpacafarm.tracking.tracker import Fanout, JsonLines, WandbTracker


@pytest.fixture
def path(tmp_path):
    return tmp_path / "log.jsonl"


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_floats_come_back_bit_for_bit(path):
    values = {"loss": 0.1 + 0.2, "lr": 1e-7 / 3, "response_tokens/mean": 1e22, "count": 3}
    JsonLines(path).log(1, values)
    assert rows(path) == [{"step": 1, **values}]


def test_a_line_is_in_the_file_when_log_returns(path):
    tracker = JsonLines(path)
    for step in (1, 2):
        tracker.log(step, {"loss": 1.0})
        assert len(rows(path)) == step


def test_only_rank_0_writes(path):
    tracker = JsonLines(path, rank=1)
    tracker.log(1, {"loss": 1.0})
    assert not path.exists()
    JsonLines(path, rank=0).log(1, {"loss": 1.0})
    tracker.rewind(0)
    assert len(rows(path)) == 1


def test_rewinding_and_repeating_gives_the_undisturbed_file(path, tmp_path):
    straight, resumed = JsonLines(tmp_path / "straight.jsonl"), JsonLines(path)
    for step in range(1, 6):
        straight.log(step, {"loss": 1 / step})
        resumed.log(step, {"loss": 1 / step})
    later = JsonLines(path)
    later.rewind(3)
    assert [row["step"] for row in rows(path)] == [1, 2, 3]
    for step in (4, 5):
        later.log(step, {"loss": 1 / step})
    assert path.read_bytes() == straight.path.read_bytes()


@pytest.mark.parametrize("torn", [b'{"step": 2, "lo', b'{"step"', b"\0\0\0\n", b'{"step": 2, "loss": 2.0}'])
@pytest.mark.parametrize("rewinds", [True, False])
def test_a_line_torn_by_a_kill_is_dropped(path, torn, rewinds):
    JsonLines(path).log(1, {"loss": 1.0})
    with path.open("ab") as file:
        file.write(torn)
    later = JsonLines(path)
    if rewinds:
        later.rewind(1)
    later.log(2, {"loss": 0.5})
    assert [(row["step"], row["loss"]) for row in rows(path)] == [(1, 1.0), (2, 0.5)]


def test_a_kill_while_rewinding_leaves_the_old_file(path, monkeypatch):
    tracker = JsonLines(path)
    for step in (1, 2):
        tracker.log(step, {})
    monkeypatch.setattr(os, "fsync", _killed)
    with pytest.raises(KeyboardInterrupt):
        tracker.rewind(1)
    assert len(rows(path)) == 2


def _killed(*_):
    raise KeyboardInterrupt


def test_what_is_not_finite_is_null_with_one_warning(path, caplog):
    tracker = JsonLines(path)
    for step in (1, 2):
        tracker.log(step, {"loss": math.nan, "kl": -math.inf})
    assert rows(path)[1] == {"step": 2, "loss": None, "kl": None}
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "loss is nan at step 1" in caplog.text


def test_fanout_tells_every_tracker(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    tracker = Fanout(*map(JsonLines, paths))
    for step in (1, 2):
        tracker.log(step, {"loss": 1.0})
    tracker.rewind(1)
    assert [rows(path) for path in paths] == [[{"step": 1, "loss": 1.0}]] * 2


SETTINGS = {"project": "p", "group": "g", "name": "n", "config": {"beta": 0.1}}


def test_without_its_package_wandb_is_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(SpecError, match="pip install wandb"):
        WandbTracker(tmp_path, **SETTINGS)


def test_on_other_ranks_wandb_is_not_even_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    tracker = WandbTracker(tmp_path, **SETTINGS, rank=1)
    tracker.log(1, {"loss": 1.0})
    tracker.close()


@pytest.mark.slow  # wandb starts a service of its own
def test_offline_wandb_needs_no_account_and_leaves_a_file(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "")
    tracker = WandbTracker(tmp_path / "run", **SETTINGS)
    tracker.log(2, {"loss": 1.0})
    tracker.rewind(0)
    tracker.log(1, {"loss": 1.0})
    tracker.close()
    assert list((tmp_path / "run").glob("wandb/offline-run-*/*.wandb"))
