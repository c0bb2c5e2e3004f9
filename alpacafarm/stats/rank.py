"""Rank correlations with ties. None where one side is constant, or has fewer than two values."""

import math
from collections.abc import Sequence
from itertools import combinations


def spearman(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson correlation of the ranks; tied values share their mean rank."""
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values cannot be paired")
    return _pearson(_ranks(a), _ranks(b))


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


def _ranks(values: Sequence[float]) -> list[float]:
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
