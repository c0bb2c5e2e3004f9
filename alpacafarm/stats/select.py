"""Choosing among scored samples."""

import math
from collections.abc import Sequence


def best_of(scores: Sequence[float]) -> int:
    """Index of the highest score, the first of equals."""
    _check(scores)
    return max(range(len(scores)), key=scores.__getitem__)


def quantiles(scores: Sequence[float], k: int) -> list[int]:
    """Quantile of each score, 0 the best and k - 1 the worst (Lu et al. 2022, Quark; arXiv:2205.13636).

    Equal sizes; what does not divide goes to the worst, and equal scores keep their order, as in alpaca_farm.
    """
    _check(scores)
    size = len(scores) // k
    if size == 0:
        raise ValueError(f"{len(scores)} scores cannot fill {k} quantiles; use fewer quantiles")
    quantile = [0] * len(scores)
    best_first = sorted(range(len(scores)), key=lambda i: -scores[i])
    for place, i in enumerate(best_first):
        quantile[i] = min(place // size, k - 1)
    return quantile


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1)/n, in nats: how far best of n is from its policy (Stiennon et al. 2020, appendix G.3).

    Exact where no sample comes up twice and no scores are equal. For a language model it is an upper bound of
    the KL (Beirami et al. 2024; arXiv:2401.01879).
    """
    if n < 1:
        raise ValueError(f"best of {n} samples is undefined; n must be at least 1")
    return math.log(n) - (n - 1) / n


def _check(scores: Sequence[float]) -> None:
    if not scores:
        raise ValueError("no scores to choose from")
    for i, score in enumerate(scores):
        if math.isnan(score):
            raise ValueError(f"score {i} of {len(scores)} is nan, which has no rank")
