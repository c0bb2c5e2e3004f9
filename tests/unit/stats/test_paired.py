"""Paired differences and the head-to-head matrix."""

import random
from dataclasses import asdict

import pytest

from alpacafarm.stats.paired import difference, head_to_head
from alpacafarm.stats.winrate import mean_and_se


@pytest.fixture
def rates():
    """Shares of two models that agree on most rows; each lacks some of the other's."""
    rng = random.Random(0)
    common = {f"r{i}": float(rng.random() < 0.6) for i in range(400)}
    other = {row: share if rng.random() < 0.8 else 1 - share for row, share in common.items()}
    a = {row: share for row, share in common.items() if row != "r7"}
    b = {row: share for row, share in other.items() if row not in ("r3", "r5")}
    return a, b


def gaps(a, b):
    return [a[row] - b[row] for row in a.keys() & b.keys()]


def test_interval_is_that_of_the_normal_approximation_of_the_paired_differences(rates):
    found = difference(*rates, seed=0, draws=4000)
    mean, error = mean_and_se(gaps(*rates))
    assert found.estimate == pytest.approx(100 * mean)
    # the ends are order statistics of 4000 draws, good to a tenth of an error
    assert found.low == pytest.approx(100 * (mean - 1.96 * error), abs=10 * error)
    assert found.high == pytest.approx(100 * (mean + 1.96 * error), abs=10 * error)


def test_rows_that_only_one_has_are_not_compared_and_signs_are_counted(rates):
    found = difference(*rates, seed=0, draws=100)
    expected = gaps(*rates)
    assert found.n_total == len(expected) == 397
    signs = [found.n_better, found.n_worse, found.n_ties]
    assert signs == [sum(gap > 0 for gap in expected), sum(gap < 0 for gap in expected), expected.count(0)]


def test_swapped_models_give_the_mirror(rates):
    a, b = rates
    one, other = difference(a, b, seed=1, draws=500), difference(b, a, seed=1, draws=500)
    assert asdict(other) == pytest.approx(asdict(one.mirrored))
    assert one.mirrored.mirrored == one


def test_order_of_the_rows_does_not_matter(rates):
    a, b = rates
    turned = dict(reversed(a.items()))
    assert difference(turned, b, seed=1, draws=50) == difference(a, b, seed=1, draws=50)


def test_p_is_uniform_without_a_difference_and_small_with_one():
    rng = random.Random(3)

    def shares(rate):
        return {i: float(rng.random() < rate) for i in range(200)}

    p = [difference(shares(0.5), shares(0.5), seed=i, draws=300).p for i in range(200)]
    assert 4 <= sum(value < 0.05 for value in p) <= 20  # 10 expected; 99% of a binomial lies within
    assert difference(shares(0.7), shares(0.4), seed=0, draws=300).p == pytest.approx(2 / 301)


def test_equal_models_differ_by_nothing_for_sure():
    found = difference({1: 0.5, 2: 1.0}, {1: 0.5, 2: 1.0}, seed=0, draws=50)
    assert (found.estimate, found.low, found.high, found.p, found.n_ties) == (0, 0, 0, 1, 2)


def test_models_without_a_shared_row_have_no_difference():
    assert difference({1: 1.0}, {2: 1.0}, seed=0, draws=10) is None


def test_a_cell_and_its_mirror_add_up_whatever_the_order_of_the_answers():
    rng = random.Random(1)
    met = [("a", "b"), ("b", "a"), ("c", "a"), ("c", "c")]
    verdicts = [(*rng.choice(met), rng.random()) for _ in range(300)]
    names, cells = head_to_head(verdicts)
    assert names == ["a", "b", "c"]
    assert set(cells) == {("a", "b"), ("b", "a"), ("a", "c"), ("c", "a")}
    for (a, b), duel in cells.items():
        assert duel.win_rate + cells[b, a].win_rate == 100
        assert duel.n_total == cells[b, a].n_total
    b_over_a = [s if (x, y) == ("a", "b") else 1 - s for x, y, s in verdicts if {x, y} == {"a", "b"}]
    assert cells["b", "a"].win_rate == pytest.approx(100 * sum(b_over_a) / len(b_over_a))
