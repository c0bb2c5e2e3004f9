"""Rows of the embedded world."""

import pytest

from alpacafarm.data.plan import WorldRows
from alpacafarm.data.world import examples
from alpacafarm.spec.data import SPLITS
from alpacafarm.world.gold import read, score
from alpacafarm.world.tasks import parse


def mean_gold(split, count=400):
    rows = examples(WorldRows(split=split, rows=count, seed=0))
    tasks = [parse(row.instruction, row.input) for row in rows]
    return sum(score(read(task, row.output)) for task, row in zip(tasks, rows, strict=True)) / count


@pytest.mark.parametrize("split", [s for s in SPLITS if s != "pretrain"])
def test_every_split_is_answered(split):
    rows = examples(WorldRows(split=split, rows=100, seed=0))
    assert len(rows) == 100
    assert all(row.output for row in rows)


def test_splits_that_train_are_answered_like_demonstrations_and_references_better():
    sft, preference, unlabeled, references = map(mean_gold, ("sft", "preference", "unlabeled", "eval"))
    assert abs(preference - sft) < 0.3
    assert abs(unlabeled - sft) < 0.3
    assert references > sft + 0.5
