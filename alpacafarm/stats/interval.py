"""Bootstrap intervals."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    estimate: float
    low: float
    high: float


def percentile_interval(estimate: float, draws: Sequence[float], level: float) -> Interval:
    """The middle `level` of the bootstrap draws (Efron and Tibshirani 1993, section 13.3)."""
    ordered, tail = sorted(draws), (1 - level) / 2
    return Interval(estimate, _quantile(ordered, tail), _quantile(ordered, 1 - tail))


def _quantile(ordered: Sequence[float], q: float) -> float:
    """Linear between order statistics."""
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
