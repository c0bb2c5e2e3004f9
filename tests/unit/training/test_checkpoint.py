"""Damaged records of a checkpoint cost the progress, not the stage."""

import json
from types import SimpleNamespace

import pytest

from alpacafarm.engine.single import SingleProcess
from alpacafarm.ports import Layout
from alpacafarm.tracking.meter import Meter
from alpacafarm.training.checkpoint import Checkpoints, dealt

HERE = Layout("deepspeed", 1, 0)
METER = {"seconds": {}, "peak_memory_bytes": 1, "tokens": 10, "samples": 3, "computed": 12}
RECORD = {"step": 3, "folder": "checkpoint-3", "state": {"seen": 1}, "meter": METER}


class FakeEngine:
    """Reads checkpoints that `writer` wrote."""

    layout = HERE

    def __init__(self, writer=HERE):
        self.writer, self.restored = writer, []

    def restore(self, path):
        self.restored.append(path)
        return self.writer

    def checkpoint(self, path):
        path.mkdir()


def checkpoints(scratch, writer=HERE):
    engine, rewound = FakeEngine(writer), []
    ctx = SimpleNamespace(
        name="sft",
        scratch=scratch,
        dist=SingleProcess(),
        track=SimpleNamespace(rewind=rewound.append),
        meter=Meter(),
        told=[],
    )
    ctx.went_on = ctx.told.append
    return Checkpoints(engine, ctx), engine.restored, rewound


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
    assert made.ctx.told == []


def test_every_change_of_ranks_is_told_also_after_a_later_stop(tmp_path):
    (tmp_path / "latest.json").write_text(json.dumps(RECORD))
    (tmp_path / "checkpoint-3").mkdir()
    first, _, _ = checkpoints(tmp_path, writer=Layout("deepspeed", 2, 2))
    first.restore()
    told = ["step 3, saved on 2 ranks with ZeRO-2, on 1 rank with ZeRO-0"]
    assert first.ctx.told == told
    first.save(5, {})
    second, _, _ = checkpoints(tmp_path)
    second.restore()
    assert second.ctx.told == told
    second.save(6, {})
    third, _, _ = checkpoints(tmp_path, writer=Layout("plain", 4))
    third.restore()
    assert third.ctx.told == [*told, "step 6, saved on 4 ranks with plain torch, on 1 rank with ZeRO-0"]


@pytest.mark.parametrize(("writers", "world"), [(2, 1), (2, 4), (3, 2), (2, 2)])
def test_counts_of_the_meter_are_dealt_out_and_none_is_lost(writers, world):
    shares = [dealt(METER, writers, SimpleNamespace(rank=rank, world=world)) for rank in range(world)]
    for name in ("tokens", "samples", "computed"):
        assert sum(share[name] for share in shares) == writers * METER[name]
    assert (writers != world) or all(share == METER for share in shares)
