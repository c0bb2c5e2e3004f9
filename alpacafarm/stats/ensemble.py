"""One score from those of several reward models (Coste et al. 2023; arXiv:2310.02743)."""

import math
import statistics
from collections.abc import Sequence
from typing import Literal

Combine = Literal["mean", "min", "mean_minus_std"]


def aligning_shifts(means: Sequence[float]) -> list[float]:
    """What to add to each member's scores so that all have the mean of `means`, each member's own mean.

    Bradley-Terry leaves a reward model's zero open: without this the lowest score would be that of the
    member whose zero happens to lie lowest, and the spread that of the zeros.
    """
    centre = statistics.fmean(means)
    return [centre - mean for mean in means]


def combined(
    scores: Sequence[Sequence[float]], *, combine: Combine, std_coef: float | None = None
) -> list[float]:
    """One score for each response from aligned ones.

    Args:
        scores: a list for each member, of one score for each response.
        combine: `mean`; `min`, their worst-case optimisation; or `mean_minus_std`, the mean minus `std_coef`
            times the members' standard deviation (over k, not k - 1). Their uncertainty-weighted
            optimisation (UWO) subtracts the variance instead; the deviation is in the scores' unit, so that a
            coefficient means the same for scores of any scale.
    """
    return [_combined(of_members, combine, std_coef) for of_members in zip(*scores, strict=True)]


def _combined(of_members: Sequence[float], combine: Combine, std_coef: float | None) -> float:
    if combine == "min":
        return min(of_members)
    mean = math.fsum(of_members) / len(of_members)
    if combine == "mean":
        return mean
    assert std_coef is not None
    return mean - std_coef * statistics.pstdev(of_members, mean)
