import json
import math
import random
import statistics
from dataclasses import asdict

import pytest

from alpacafarm.stats.winrate import mean_and_se, paired_bootstrap, win_rate, win_rate_by_instruction


@pytest.fixture
def preferences():
    rng = random.Random(0)
    return [rng.choice([1, 2, 1.5, None, 1.2, 1.9]) for _ in range(200)]


def swapped(preference):
    return None if preference is None else 3 - preference


def test_wins_losses_ties_and_failures_are_counted_and_ties_are_half():
    found = win_rate([2, 2, 2, 1, 1.5, 0, None])
    assert [found.n_total, found.n_wins, found.n_wins_base, found.n_draws, found.n_failures] == [
        6,
        3,
        1,
        2,
        1,
    ]
    assert [found.win_rate, found.discrete_win_rate] == pytest.approx([100 * 4 / 6] * 2)
    assert found.standard_error == pytest.approx(
        100 * statistics.stdev([1, 1, 1, 0, 0.5, 0.5]) / math.sqrt(6)
    )


@pytest.mark.parametrize(("n_wins", "n_losses"), [(1, 2), (400, 405), (805, 0)])
def test_standard_error_without_ties_is_that_of_a_proportion(n_wins, n_losses):
    n, p = n_wins + n_losses, n_wins / (n_wins + n_losses)
    found = win_rate([2] * n_wins + [1] * n_losses)
    assert found.standard_error == pytest.approx(100 * math.sqrt(p * (1 - p) / (n - 1)))


def test_swapping_the_models_gives_the_complement(preferences):
    one, other = win_rate(preferences), win_rate([swapped(p) for p in preferences])
    assert one.win_rate + other.win_rate == pytest.approx(100)
    assert one.discrete_win_rate + other.discrete_win_rate == pytest.approx(100)
    assert one.standard_error == pytest.approx(other.standard_error)
    assert (one.n_wins, one.n_wins_base) == (other.n_wins_base, other.n_wins)
    assert (one.n_total, one.n_draws, one.n_failures) == (other.n_total, other.n_draws, other.n_failures)


@pytest.mark.parametrize("tie", [0, 1.5])
def test_ties_throughout_are_exactly_half_with_no_spread(tie):
    found = win_rate([tie] * 7)
    assert (found.win_rate, found.standard_error, found.n_draws) == (50, 0, 7)


def test_order_of_rows_does_not_matter(preferences):
    assert win_rate(sorted(preferences, key=str)) == win_rate(preferences)


def test_failed_rows_change_nothing_but_their_count(preferences):
    judged = [p for p in preferences if p is not None]
    expected = asdict(win_rate(judged)) | {"n_failures": len(preferences) - len(judged)}
    assert asdict(win_rate(preferences)) == expected


def test_probabilities_count_in_full_and_are_rounded_in_the_discrete_rate():
    found = win_rate([1.9, 1.6, 1.2])
    assert found.win_rate == pytest.approx(100 * (0.9 + 0.6 + 0.2) / 3)
    assert found.discrete_win_rate == pytest.approx(100 * 2 / 3)


def test_a_single_row_has_no_standard_error_and_json_has_no_nan():
    found = win_rate([2])
    assert (found.win_rate, found.standard_error) == (100, None)
    assert json.loads(json.dumps(asdict(found), allow_nan=False))["standard_error"] is None


@pytest.mark.parametrize(
    ("preferences", "text"), [([], "no verdict in 0 rows"), ([None] * 3, "3 judgements failed")]
)
def test_no_verdict_is_an_error(preferences, text):
    with pytest.raises(ValueError, match=text):
        win_rate(preferences)


@pytest.mark.parametrize("preference", [-1, 0.5, 2.01, 3, math.nan])
def test_a_preference_out_of_range_is_named(preference):
    with pytest.raises(ValueError, match=rf"preference {preference} is not in \[1, 2\] .* a failure is None"):
        win_rate([2, preference])


def test_repeating_every_draw_does_not_shrink_the_standard_error(preferences):
    once = win_rate(preferences)
    thrice = win_rate_by_instruction([[p, p, p] for p in preferences])
    assert asdict(thrice) == pytest.approx(asdict(once) | {"n_failures": 3 * once.n_failures})


def test_draws_are_averaged_within_the_instruction_first():
    found = win_rate_by_instruction([[2, 2, 2, 2, 2, None], [1], [2, 1], [None]])
    shares = [1, 0, 0.5]
    assert found.win_rate == pytest.approx(50)  # the mean over all eight verdicts is 75
    assert found.standard_error == pytest.approx(100 * statistics.stdev(shares) / math.sqrt(3))
    assert (found.n_total, found.n_wins, found.n_wins_base, found.n_draws, found.n_failures) == (
        3,
        1,
        1,
        1,
        2,
    )


def test_mean_and_standard_error_are_those_of_the_statistics_module():
    values = [random.Random(1).gauss(5, 2) for _ in range(50)]
    expected = statistics.mean(values), statistics.stdev(values) / math.sqrt(50)
    assert mean_and_se(values) == pytest.approx(expected)
    assert mean_and_se([3.0]) == (3.0, None)
    with pytest.raises(ValueError, match="no values"):
        mean_and_se([])


@pytest.fixture
def scores():
    """Two systems whose rows share a large common part, and differ by 0.1 on average."""
    rng = random.Random(2)
    common = [rng.gauss(0, 10) for _ in range(300)]
    return [c + rng.gauss(0.1, 1) for c in common], [c + rng.gauss(0, 1) for c in common]


def test_bootstrap_agrees_with_the_normal_interval_of_the_paired_difference(scores):
    a, b = scores
    mean, standard_error = mean_and_se([x - y for x, y in zip(a, b, strict=True)])
    found = paired_bootstrap(a, b, seed=0, draws=2000)
    assert found.estimate == pytest.approx(mean)
    # the ends of the interval are themselves estimates, from 2000 draws good to a few percent of the width
    assert found.low == pytest.approx(mean - 1.96 * standard_error, abs=0.15 * standard_error)
    assert found.high == pytest.approx(mean + 1.96 * standard_error, abs=0.15 * standard_error)


def test_bootstrap_of_swapped_systems_is_mirrored(scores):
    a, b = scores
    one, other = paired_bootstrap(a, b, seed=3, draws=200), paired_bootstrap(b, a, seed=3, draws=200)
    assert (other.estimate, other.low, other.high) == pytest.approx((-one.estimate, -one.high, -one.low))


def test_bootstrap_depends_on_the_seed_and_on_nothing_else(scores):
    one = paired_bootstrap(*scores, seed=3, draws=100)
    random.seed(99)
    assert paired_bootstrap(*scores, seed=3, draws=100) == one
    assert paired_bootstrap(*scores, seed=4, draws=100) != one


def test_a_higher_level_gives_a_wider_interval_around_the_other(scores):
    narrow = paired_bootstrap(*scores, seed=0, draws=500, level=0.5)
    wide = paired_bootstrap(*scores, seed=0, draws=500, level=0.99)
    assert wide.low < narrow.low < narrow.estimate < narrow.high < wide.high


def test_a_constant_difference_is_certain():
    found = paired_bootstrap([3.0, 5.0, 9.0], [1.0, 3.0, 7.0], seed=0, draws=50)
    assert (found.estimate, found.low, found.high) == (2, 2, 2)


def test_bootstrap_needs_paired_rows():
    with pytest.raises(ValueError, match="shorter"):
        paired_bootstrap([1.0, 2.0], [1.0], seed=0, draws=10)
    with pytest.raises(ValueError, match="no rows"):
        paired_bootstrap([], [], seed=0, draws=10)
