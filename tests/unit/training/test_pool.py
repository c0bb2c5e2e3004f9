"""The pool: what is kept, how it survives a checkpoint, and whose quantile a sample is in."""

import json
import random

import pytest

from alpacafarm.training.pool import Sample, kept, pool_quantiles, restored


def samples(scores: list[float], step: int = 0) -> list[Sample]:
    return [Sample(step, i, (5, 6, i), i % 2 == 0, score) for i, score in enumerate(scores)]


SCORES = [2.0, 0.1, 1.5, -0.7, 0.9, 0.3, 1.2, 0.5]


def test_what_is_kept_survives_json_and_old_steps_are_forgotten():
    pool = [sample for step in range(4) for sample in samples(SCORES, step)]
    told = json.loads(json.dumps(kept(pool, since=2)))
    assert restored(told) == [sample for sample in pool if sample.step in (2, 3)]


def test_corrected_quantiles_are_those_of_all_ranks_together():
    ranking = sorted(SCORES, reverse=True)
    for world in (1, 2, 4):
        found = pool_quantiles(samples(SCORES), 4, fidelity="corrected", world=world)
        assert found == [ranking.index(score) // 2 for score in SCORES]


def test_published_quantiles_are_each_ranks_own():
    found = pool_quantiles(samples(SCORES), 2, fidelity="published", world=2)
    for rank in (0, 1):
        own = SCORES[rank::2]
        ranking = sorted(own, reverse=True)
        assert found[rank::2] == [ranking.index(score) // 2 for score in own]
    assert found != pool_quantiles(samples(SCORES), 2, fidelity="corrected", world=2)


def test_on_one_rank_both_are_the_same():
    one, other = (
        pool_quantiles(samples(SCORES), 3, fidelity=fidelity, world=1)  # type: ignore[arg-type]
        for fidelity in ("corrected", "published")
    )
    assert one == other


@pytest.mark.parametrize("k", [1, 2, 3])
def test_a_samples_quantile_does_not_depend_on_its_place(k: int):
    order = random.Random(0).sample(range(len(SCORES)), len(SCORES))
    found = pool_quantiles(samples(SCORES), k, fidelity="corrected", world=1)
    shuffled = pool_quantiles(samples([SCORES[i] for i in order]), k, fidelity="corrected", world=1)
    assert shuffled == [found[i] for i in order]
