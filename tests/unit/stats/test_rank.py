import itertools
import math
import random
from statistics import NormalDist

import pytest

from alpacafarm.stats.rank import Measured, kendall_tau_b, rank_bootstrap, spearman

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


def column(means, error):
    return [Measured(mean, error) for mean in means]


def certain(means):
    return column(means, 0.0)


def test_without_errors_the_interval_is_the_estimate(values):
    found = rank_bootstrap(certain(values[0]), certain(values[1]), seed=0, draws=20)
    for interval, correlation in ((found.spearman, spearman), (found.kendall_tau_b, kendall_tau_b)):
        expected = correlation(*values)
        assert (interval.estimate, interval.low, interval.high) == pytest.approx((expected,) * 3)


@pytest.mark.parametrize(("errors_apart", "low"), [(1.8, -1.0), (2.15, 1.0)])
def test_two_methods_are_in_order_as_often_as_the_normal_distribution_says(errors_apart, low):
    """They change places with probability Phi(-errors_apart), which the tail of 0.025 has at 1.96."""
    assert (NormalDist().cdf(-errors_apart) > 0.025) == (low == -1)
    unsure = column([0.0, errors_apart * math.sqrt(2)], 1.0)  # a difference has the error sqrt(2)
    found = rank_bootstrap(certain([1.0, 2.0]), unsure, seed=0, draws=4000)
    for interval in (found.spearman, found.kendall_tau_b):
        assert (interval.estimate, interval.low, interval.high) == pytest.approx((1, low, 1))


def test_errors_of_either_column_count_alike(values):
    a, b = values
    draws = 4000
    one = rank_bootstrap(column(a, 0.2), certain(b), seed=0, draws=draws)
    other = rank_bootstrap(certain(b), column(a, 0.2), seed=1, draws=draws)
    for name in ("spearman", "kendall_tau_b"):
        left, right = getattr(one, name), getattr(other, name)
        # Other draws: the ends of an interval move by about a hundredth, its estimate not at all.
        assert right.estimate == pytest.approx(left.estimate)
        assert (right.low, right.high) == pytest.approx((left.low, left.high), abs=0.04)
        assert left.low < left.high


def test_turning_one_column_round_mirrors_the_interval(values):
    a, b = values
    plain = rank_bootstrap(column(a, 0.2), column(b, 0.1), seed=0, draws=4000)
    turned = rank_bootstrap(column([-x for x in a], 0.2), column(b, 0.1), seed=0, draws=4000)
    for name in ("spearman", "kendall_tau_b"):
        left, right = getattr(plain, name), getattr(turned, name)
        assert right.estimate == pytest.approx(-left.estimate)
        assert (right.low, right.high) == pytest.approx((-left.high, -left.low), abs=0.04)  # other draws


def test_larger_errors_and_a_higher_level_widen_the_interval(values):
    def width(error, level):
        found = rank_bootstrap(column(values[0], error), certain(values[0]), seed=0, draws=1000, level=level)
        return found.spearman.high - found.spearman.low

    assert width(0.01, 0.95) < width(0.1, 0.95) < width(1.0, 0.95)
    assert width(0.1, 0.5) < width(0.1, 0.95) < width(0.1, 0.99)


def test_rank_bootstrap_depends_on_the_seed_and_on_nothing_else(values):
    columns = column(values[0], 0.3), column(values[1], 0.3)
    one = rank_bootstrap(*columns, seed=3, draws=100)
    random.seed(99)
    assert rank_bootstrap(*columns, seed=3, draws=100) == one
    assert rank_bootstrap(*columns, seed=4, draws=100) != one


def test_equal_means_have_no_order_to_agree_with():
    found = rank_bootstrap(column([1.0, 1.0, 1.0], 0.5), certain([1.0, 2.0, 3.0]), seed=0, draws=10)
    assert (found.spearman, found.kendall_tau_b) == (None, None)


def test_rank_bootstrap_needs_the_same_methods_in_both_columns():
    with pytest.raises(ValueError, match="2 and 1 methods cannot be paired"):
        rank_bootstrap(certain([1.0, 2.0]), certain([1.0]), seed=0, draws=10)
