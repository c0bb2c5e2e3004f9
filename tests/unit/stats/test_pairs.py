import math
import random
from collections import Counter

import pytest

from alpacafarm.stats.pairs import derangement, derangement_pairs, pair_samples


@pytest.mark.parametrize("n", [0, 2, 3, 7, 100])
def test_a_derangement_is_a_permutation_that_moves_every_element(n):
    order = derangement(n, random.Random(0))
    assert sorted(order) == list(range(n))
    assert all(i != j for i, j in enumerate(order))


def test_derangements_are_uniform():
    rng = random.Random(0)
    counts = Counter(tuple(derangement(4, rng)) for _ in range(9000))
    assert len(counts) == 9  # !4
    assert all(abs(count - 1000) < 4 * math.sqrt(1000) for count in counts.values())


def test_one_element_has_no_derangement():
    with pytest.raises(ValueError, match="no derangement"):
        derangement(1, random.Random(0))


def test_two_different_samples_are_compared_in_their_order():
    assert all(pair_samples(["a", "b"], seed) == (0, 1) for seed in range(20))


def test_the_first_sample_meets_each_other_one_equally_often():
    counts = Counter(pair_samples(["a", "b", "c", "d"], seed) for seed in range(3000))
    assert set(counts) == {(0, 1), (0, 2), (0, 3)}
    assert all(abs(count - 1000) < 4 * math.sqrt(1000) for count in counts.values())


@pytest.mark.parametrize("outputs", [[], ["a"], ["a", "a", "a"]])
def test_samples_without_two_texts_give_no_pair(outputs):
    assert pair_samples(outputs, 0) is None
    assert derangement_pairs(outputs, 0) == []


@pytest.mark.parametrize("seed", range(20))
def test_every_distinct_text_stands_first_once_and_second_once(seed):
    outputs = ["a", "b", "a", "c", "b", "d"]
    pairs = derangement_pairs(outputs, seed)
    for side in 0, 1:
        assert sorted(outputs[pair[side]] for pair in pairs) == ["a", "b", "c", "d"]
    assert all(outputs[i] != outputs[j] for i, j in pairs)
    assert pair_samples(outputs, seed) == pairs[0]


def test_duplicates_are_represented_by_their_first_index():
    assert {i for pair in derangement_pairs(["a", "a", "b", "b"], 0) for i in pair} == {0, 2}


def test_the_pair_follows_from_the_seed():
    outputs = [str(i) for i in range(10)]
    assert pair_samples(outputs, 5) == pair_samples(outputs, 5)
    assert len({pair_samples(outputs, seed) for seed in range(50)}) > 1
