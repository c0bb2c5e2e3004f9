"""The reference's log-probabilities: the same from any number of ranks, and only for what was measured."""

import json
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from alpacafarm.errors import ArtifactError
from alpacafarm.ports import Artifact
from alpacafarm.rollout import reference
from alpacafarm.rollout.reference import fingerprint, read_logprobs, response_logprobs
from alpacafarm.stage import Kind
from alpacafarm.text.collate import Tokens
from alpacafarm.tracking.meter import Meter
from alpacafarm.tracking.progress import progress
from tests.unit.models import tiny

ROWS = tiny.rows(11)


class Ranks:
    """One of several ranks. What the others gather is what they left in `shares`."""

    def __init__(self, rank: int, world: int, shares: list[Any]) -> None:
        self.rank, self.world, self.shares = rank, world, shares

    def gather(self, value: Any) -> list[Any]:
        self.shares[self.rank] = value
        return self.shares


def context(rank: int = 0, world: int = 1, shares: list[Any] | None = None) -> tuple[Any, list[int]]:
    """A stage with a model whose log-probabilities are known: minus the token's id, in units of 0.1."""
    calls: list[int] = []

    def logprobs(policy: Any, rows: list[Tokens], temperature: float) -> torch.Tensor:
        calls.append(len(rows))
        width = max(len(row.response) for row in rows)
        return torch.tensor(
            [[-0.1 * t for t in row.response] + [0.0] * (width - len(row.response)) for row in rows]
        )

    ctx = SimpleNamespace(
        dist=Ranks(rank, world, shares if shares is not None else [None] * world),
        logprobs=logprobs,
        meter=Meter(),
        micro_batch=4,
        progress=lambda total, label: progress(total, label, rank=1),
    )
    return ctx, calls


def by_hand(row: Tokens) -> float:
    return -0.1 * sum(row.response)


def test_every_row_gets_the_sum_over_its_response():
    ctx, _ = context()
    found = response_logprobs(None, ROWS, ctx)
    assert found == pytest.approx([by_hand(row) for row in ROWS], rel=1e-6)
    counted = ctx.meter.state()
    assert counted["tokens"] == sum(row.length for row in ROWS)
    assert counted["computed"] > counted["tokens"]


@pytest.mark.parametrize("world", [2, 3, 16])
def test_ranks_share_the_rows_and_bring_equally_many_batches(world, monkeypatch):
    monkeypatch.setattr(reference, "PASS", 3)
    shares: list[Any] = [None] * world
    batches = []
    for rank in range(world):
        ctx, calls = context(rank, world, shares)
        try:
            response_logprobs(None, ROWS, ctx)
        except TypeError:  # the later ranks have gathered nothing yet
            assert rank < world - 1
        batches.append(calls)
    assert batches == [batches[0]] * world
    assert sum(batches[0]) == math.ceil(len(ROWS) / world)
    ctx, _ = context(0, world, shares)
    assert response_logprobs(None, ROWS, ctx) == pytest.approx([by_hand(row) for row in ROWS], rel=1e-6)


def written(tmp_path, rows) -> Artifact:
    lines = [json.dumps({"row": fingerprint(row), "logprob": by_hand(row)}) + "\n" for row in rows]
    (tmp_path / "logprobs.jsonl").write_text("".join(lines))
    return Artifact(tmp_path, Kind.LOGPROBS, "key")


def test_rows_are_found_in_any_order_and_as_often_as_asked_for(tmp_path):
    artifact = written(tmp_path, ROWS)
    asked = [*ROWS[::-1], ROWS[0]]
    assert read_logprobs(artifact, asked) == [by_hand(row) for row in asked]


def test_other_pairs_are_refused(tmp_path):
    artifact = written(tmp_path, ROWS[1:])
    with pytest.raises(
        ArtifactError, match=r"logprobs\.jsonl: 1 of 11 responses are not in it: .*delete the folder"
    ):
        read_logprobs(artifact, ROWS)


@pytest.mark.parametrize("text", [None, "nonsense\n", '{"row": "a"}\n', "[]\n"])
def test_what_cannot_be_read_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "logprobs.jsonl").write_text(text)
    with pytest.raises(ArtifactError, match=r"logprobs\.jsonl: no log-probabilities can be read .*delete"):
        read_logprobs(Artifact(tmp_path, Kind.LOGPROBS, "key"), ROWS)


def test_a_fingerprint_tells_prompt_from_response():
    assert fingerprint(Tokens((1, 2), (3,))) != fingerprint(Tokens((1,), (2, 3)))
