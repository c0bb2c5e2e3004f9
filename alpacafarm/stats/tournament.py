"""Scores of the responses to one prompt from comparisons of each with each."""

from collections.abc import Mapping, Sequence
from itertools import combinations

Match = tuple[int, int]  # which response is shown first, which second


def matches(size: int) -> list[Match]:
    """Every two of `size` responses once. Each is first about as often as second, so that a judge who prefers
    a place favours none."""
    return [(i, j) if (i + j) % 2 else (j, i) for i, j in combinations(range(size), 2)]


def tournament(size: int, preferences: Mapping[Match, float | None]) -> list[float]:
    """For each response the mean share of its wins over the others, minus one half.

    Args:
        preferences: of each match, 1 to 2: the first or the second is the better one, 1.5 a tie. None is a
            failed verdict, which counts for neither. A response without any verdict scores 0, an average one.
    """
    shares: list[list[float]] = [[] for _ in range(size)]
    for (first, second), preference in preferences.items():
        if preference is not None:
            shares[first].append(2 - preference)
            shares[second].append(preference - 1)
    return [_mean(share) - 0.5 if share else 0.0 for share in shares]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
