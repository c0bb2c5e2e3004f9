"""Damaged records of a checkpoint cost the progress, not the stage."""

import json
from types import SimpleNamespace

import pytest

from alpacafarm.engine.single import SingleProcess
from alpacafarm.training.checkpoint import Checkpoints


def checkpoints(scratch):
    restored, rewound = [], []
    track = SimpleNamespace(rewind=rewound.append)
    meter = SimpleNamespace(restore=lambda state: None)
    ctx = SimpleNamespace(scratch=scratch, dist=SingleProcess(), track=track, meter=meter)
    return Checkpoints(SimpleNamespace(restore=restored.append), ctx), restored, rewound


RECORD = {"step": 3, "folder": "checkpoint-3", "state": {"seen": 1}, "meter": {}}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", json.dumps(RECORD)])
def test_a_damaged_record_or_one_without_its_folder_starts_from_the_beginning(tmp_path, text, caplog):
    (tmp_path / "latest.json").write_text(text)
    made, restored, rewound = checkpoints(tmp_path)
    assert made.restore() == (0, {})
    assert (restored, rewound) == ([], [0])
    assert "latest.json is damaged" in caplog.text


def test_a_whole_one_is_restored(tmp_path):
    (tmp_path / "latest.json").write_text(json.dumps(RECORD))
    (tmp_path / "checkpoint-3").mkdir()
    made, restored, rewound = checkpoints(tmp_path)
    assert made.restore() == (3, {"seen": 1})
    assert (restored, rewound) == ([tmp_path / "checkpoint-3"], [3])
