import math

import pytest

from alpacafarm.stats.noise import flips

ROWS = [f"row {i}" for i in range(6000)]


def within_binomial_noise(count, n, p):
    return abs(count - n * p) < 4 * math.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("p", [0.05, 0.25, 0.4])
def test_agreement_with_clean_labels_is_one_minus_p(p):
    clean = [1 if i % 3 else 2 for i in range(len(ROWS))]
    fates = flips(ROWS, p, seed=0)
    noisy = [c if fate.is_judged else fate.coin for fate, c in zip(fates, clean, strict=True)]
    n_agree = sum(a == b for a, b in zip(noisy, clean, strict=True))
    assert within_binomial_noise(n_agree, len(ROWS), 1 - p)


@pytest.mark.parametrize("p", [0.05, 0.25, 0.4])
def test_twice_p_of_the_rows_are_not_judged_and_their_coins_are_fair(p):
    coins = [fate.coin for fate in flips(ROWS, p, seed=0) if not fate.is_judged]
    assert within_binomial_noise(len(coins), len(ROWS), 2 * p)
    assert within_binomial_noise(coins.count(1), len(coins), 0.5)
    assert set(coins) == {1, 2}


def test_without_noise_every_row_is_judged_and_at_one_half_none_is():
    assert all(fate.is_judged for fate in flips(ROWS, 0, seed=0))
    assert not any(fate.is_judged for fate in flips(ROWS, 0.5, seed=0))


def test_a_fate_depends_on_seed_and_row_alone():
    whole = flips(ROWS[:100], 0.25, seed=0)
    assert flips(ROWS[:100][::-1], 0.25, seed=0) == whole[::-1]
    assert [flips([row], 0.25, seed=0)[0] for row in ROWS[:100]] == whole
    assert [fate.row_id for fate in whole] == ROWS[:100]
    assert flips(ROWS[:100], 0.25, seed=1) != whole


def test_seeds_and_pairs_of_one_instruction_are_independent():
    def is_replaced(rows, seed):
        return [not fate.is_judged for fate in flips(rows, 0.25, seed)]

    base = is_replaced(ROWS, 0)
    for other in is_replaced(ROWS, 1), is_replaced([f"{row}/2" for row in ROWS], 0):
        both = sum(a and b for a, b in zip(base, other, strict=True))
        assert within_binomial_noise(both, len(ROWS), 0.25)


def test_more_noise_replaces_the_same_rows_by_the_same_coins_and_others():
    low, high = flips(ROWS, 0.1, seed=0), flips(ROWS, 0.25, seed=0)
    assert all(a == b for a, b in zip(low, high, strict=True) if not a.is_judged)
    assert sum(fate.is_judged for fate in low) > sum(fate.is_judged for fate in high)


@pytest.mark.parametrize("p", [-0.1, 0.51, 1, math.nan])
def test_a_probability_out_of_range_is_refused(p):
    with pytest.raises(ValueError, match=rf"flip probability is {p}, must be between 0 and 0\.5"):
        flips(ROWS[:1], p, seed=0)
