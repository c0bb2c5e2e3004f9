"""Rank correlations with ties. None where one side is constant, or has fewer than two values."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

from alpacafarm.stats.interval import Interval, percentile_interval


@dataclass(frozen=True)
class Measured:
    """One method's number and how uncertain it is."""

    mean: float
    standard_error: float


@dataclass(frozen=True)
class RankAgreement:
    """How far two measures put the methods in the same order. None where a column's means are all equal."""

    spearman: Interval | None
    kendall_tau_b: Interval | None


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson correlation of the ranks; tied values share their mean rank."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    return _pearson(ranks(a), ranks(b))


def kendall_tau_b(a: Sequence[float], b: Sequence[float]) -> float | None:
    """(concordant - discordant) / sqrt(pairs untied in a * pairs untied in b) (Kendall 1945)."""
    agreement = untied_a = untied_b = 0
    for (a_i, b_i), (a_j, b_j) in combinations(zip(a, b, strict=True), 2):
        order_a, order_b = _sign(a_i - a_j), _sign(b_i - b_j)
        agreement += order_a * order_b
        untied_a += order_a != 0
        untied_b += order_b != 0
    if not untied_a or not untied_b:
        return None
    return agreement / math.sqrt(untied_a * untied_b)


def rank_bootstrap(
    a: Sequence[Measured], b: Sequence[Measured], *, seed: int, draws: int, level: float = 0.95
) -> RankAgreement:
    """Rank correlations of the means of two columns, with percentile intervals from a parametric bootstrap
    (Efron and Tibshirani 1993, sections 6.5 and 13.3).

    Method i has row i of both columns. Each draw is a normal one around every mean, with its standard error,
    independent over methods and columns. So the intervals are about these methods measured anew, not about
    other methods. The observed means are noisy already and each draw adds noise of the same size: where the
    errors are as large as the differences, the draws lie nearer to zero than the estimate, which may then lie
    outside of its interval.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} methods cannot be paired")
    rng = random.Random(seed)
    drawn = [(_drawn(a, rng), _drawn(b, rng)) for _ in range(draws)]
    means = [method.mean for method in a], [method.mean for method in b]

    def interval(correlation: Callable[[Sequence[float], Sequence[float]], float | None]) -> Interval | None:
        estimate = correlation(*means)
        if estimate is None:
            return None
        # Means that differ do so in each draw: a draw is the mean itself, or continuous.
        found = [value for columns in drawn if (value := correlation(*columns)) is not None]
        return percentile_interval(estimate, found, level)

    return RankAgreement(interval(spearman), interval(kendall_tau_b))


def _drawn(column: Sequence[Measured], rng: random.Random) -> list[float]:
    return [rng.gauss(method.mean, method.standard_error) for method in column]


def ranks(values: Sequence[float]) -> list[float]:
    """From 1; each value's rank is the mean of the places that its equals take."""
    ordered = sorted(values)
    first: dict[float, int] = {}
    count: dict[float, int] = {}
    for place, value in enumerate(ordered, start=1):
        first.setdefault(value, place)
        count[value] = count.get(value, 0) + 1
    return [first[value] + (count[value] - 1) / 2 for value in values]


def _pearson(a: Sequence[float], b: Sequence[float]) -> float | None:
    mean_a, mean_b = math.fsum(a) / max(len(a), 1), math.fsum(b) / max(len(b), 1)
    covariance = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = math.fsum((x - mean_a) ** 2 for x in a) * math.fsum((y - mean_b) ** 2 for y in b)
    return covariance / math.sqrt(spread) if spread else None


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)
