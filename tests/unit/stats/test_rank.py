import itertools
import math
import random

import pytest

from alpacafarm.stats.rank import kendall_tau_b, spearman

BOTH = pytest.mark.parametrize("correlation", [spearman, kendall_tau_b])


@pytest.fixture
def values():
    rng = random.Random(0)
    return [rng.random() for _ in range(12)], [rng.random() for _ in range(12)]


def test_spearman_without_ties_is_the_formula_of_squared_rank_differences(values):
    a, b = values
    squared = sum((sorted(a).index(x) - sorted(b).index(y)) ** 2 for x, y in zip(a, b, strict=True))
    assert spearman(a, b) == pytest.approx(1 - 6 * squared / (12 * (12**2 - 1)))


def test_kendall_without_ties_counts_inversions(values):
    a, b = values
    in_order_of_a = [y for _, y in sorted(zip(a, b, strict=True))]
    inversions = sum(x > y for x, y in itertools.combinations(in_order_of_a, 2))
    assert kendall_tau_b(a, b) == pytest.approx(1 - 2 * inversions / 66)


def test_ties_share_their_mean_rank():
    # ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: covariance 4.5, spreads 4.5 and 5
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))


def test_kendall_leaves_tied_pairs_out_of_both_counts():
    # 5 concordant pairs of 6, one tied in a: 5 / sqrt(5 * 6)
    assert kendall_tau_b([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(5 / math.sqrt(30))
    # tied in both, in a only, in b only: (1 - 1) concordant
    assert kendall_tau_b([1, 1, 1, 2], [1, 1, 2, 1]) == pytest.approx(-1 / 3)


@BOTH
def test_equal_orders_give_one_and_opposite_orders_minus_one(correlation, values):
    a, _ = values
    assert correlation(a, [math.exp(x) for x in a]) == pytest.approx(1)
    assert correlation(a, [-(x**3) for x in a]) == pytest.approx(-1)


@BOTH
def test_arguments_may_be_exchanged_and_rows_reordered(correlation, values):
    a, b = [round(x, 1) for x in values[0]], [round(x, 1) for x in values[1]]
    rows = sorted(zip(a, b, strict=True))
    assert len(set(a)) < 12  # there are ties
    assert correlation(b, a) == pytest.approx(correlation(a, b))
    assert correlation([x for x, _ in rows], [y for _, y in rows]) == pytest.approx(correlation(a, b))


@BOTH
def test_a_constant_side_or_too_few_values_have_no_correlation(correlation):
    assert correlation([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert correlation([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]) is None
    assert correlation([1.0], [2.0]) is None
    assert correlation([], []) is None


@BOTH
def test_unequal_lengths_are_refused(correlation):
    with pytest.raises(ValueError, match=r"cannot be paired|shorter"):
        correlation([1.0, 2.0, 3.0], [1.0, 2.0])
