import math
import random
from collections import Counter
from itertools import pairwise

import pytest

from alpacafarm.stats.select import best_of, best_of_n_kl, quantiles


def test_best_is_the_highest_and_the_first_of_equals():
    assert best_of([1.0, 3.0, 2.0, 3.0]) == 1
    assert best_of([-5.0]) == 0
    assert best_of([-math.inf, -2.0]) == 1


def test_quantiles_are_equal_in_size_and_the_remainder_goes_to_the_worst():
    scores = random.Random(0).sample(range(1000), 14)
    found = quantiles(scores, 4)
    assert Counter(found) == {0: 3, 1: 3, 2: 3, 3: 5}
    by_quantile = [[s for s, q in zip(scores, found, strict=True) if q == k] for k in range(4)]
    assert all(min(better) > max(worse) for better, worse in pairwise(by_quantile))


def test_quantiles_follow_their_scores_under_reordering():
    scores = [0.3, -1.0, 7.0, 2.0, 5.0, 0.1]
    order = [4, 2, 0, 5, 1, 3]
    found = quantiles(scores, 3)
    assert quantiles([scores[i] for i in order], 3) == [found[i] for i in order]


def test_equal_scores_keep_their_order_across_quantiles():
    assert quantiles([1.0, 1.0, 1.0, 1.0], 2) == [0, 0, 1, 1]


def test_one_quantile_holds_everything_and_as_many_as_scores_rank_them():
    assert quantiles([3.0, 1.0, 2.0], 1) == [0, 0, 0]
    assert quantiles([3.0, 1.0, 2.0], 3) == [0, 2, 1]


def test_fewer_scores_than_quantiles_are_refused():
    with pytest.raises(ValueError, match=r"3 scores cannot fill 4 quantiles; .* fewer quantiles"):
        quantiles([1.0, 2.0, 3.0], 4)


@pytest.mark.parametrize("choose", [best_of, lambda scores: quantiles(scores, 2)])
def test_scores_without_a_rank_are_refused(choose):
    with pytest.raises(ValueError, match="score 1 of 3 is nan"):
        choose([1.0, math.nan, 2.0])
    with pytest.raises(ValueError, match="no scores"):
        choose([])


@pytest.mark.parametrize("n", [1, 2, 16, 1024])
def test_kl_of_best_of_n_is_that_of_the_largest_of_n_uniform_draws(n):
    # density of the maximum: n u^(n-1); the KL is the integral of density * log density, by the midpoint rule
    steps = 200_000
    density = [n * ((i + 0.5) / steps) ** (n - 1) for i in range(steps)]
    integral = sum(f * math.log(f) for f in density if f > 0) / steps
    assert best_of_n_kl(n) == pytest.approx(integral, abs=1e-5)


def test_kl_of_best_of_n_bounds_that_of_a_policy_over_few_responses():
    probability, n = [0.5, 0.3, 0.15, 0.05], 4
    below = [sum(probability[:i]) for i in range(5)]  # responses in order of score
    best = [b**n - a**n for a, b in pairwise(below)]
    kl = sum(q * math.log(q / p) for p, q in zip(probability, best, strict=True))
    assert 0 < kl < best_of_n_kl(n)


def test_best_of_none_is_refused():
    with pytest.raises(ValueError, match="best of 0 samples is undefined; n must be at least 1"):
        best_of_n_kl(0)
