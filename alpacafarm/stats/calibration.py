"""Whether a reward model's probabilities are as often right as they say."""

import math
from collections.abc import Sequence
from itertools import pairwise


def preference_probability(score_1: float, score_2: float) -> float:
    """sigmoid(score_2 - score_1): that output 2 is preferred, scores in nats (Bradley and Terry 1952)."""
    lead = score_2 - score_1
    return 1 / (1 + math.exp(-lead)) if lead >= 0 else math.exp(lead) / (1 + math.exp(lead))


def expected_calibration_error(
    probability_2: Sequence[float], label_2: Sequence[float], *, bins: int
) -> float:
    """sum over bins of (share of rows) * |accuracy - confidence| (Guo et al. 2017, eq. 3; arXiv:1706.04599).

    Confidence is the probability of the side that the model prefers, accuracy how often the labels do too, so
    which output stands first does not matter. Bins hold equally many rows of similar confidence, to within
    one, and there are no more of them than rows. Noise adds to it: bins of k rows of a perfect model differ
    by about 0.8 sqrt(p (1 - p) / k) from what they should be.

    Args:
        probability_2: the model's probability that output 2 is preferred.
        label_2: the true one: 0 or 1, 0.5 for a tie, between for a soft label.

    Returns:
        In [0, 1]. ValueError without rows.
    """
    if not probability_2:
        raise ValueError("no rows to measure calibration on")
    sure = [_of_the_preferred(p, label) for p, label in zip(probability_2, label_2, strict=True)]
    rows = sorted(_equals_alike(sure))
    n, bins = len(rows), min(bins, len(rows))
    edges = [n * m // bins for m in range(bins + 1)]
    gaps = (
        math.fsum(accuracy - confidence for confidence, accuracy in rows[low:high])
        for low, high in pairwise(edges)
    )
    return math.fsum(map(abs, gaps)) / n


def _of_the_preferred(probability_2: float, label_2: float) -> tuple[float, float]:
    """Confidence and accuracy of the model's choice. Without one, half of the choices are right."""
    if probability_2 == 0.5:
        return 0.5, 0.5
    return (probability_2, label_2) if probability_2 > 0.5 else (1 - probability_2, 1 - label_2)


def _equals_alike(rows: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Rows of equal confidence with their mean accuracy: the edge of a bin may fall between any of them."""
    groups: dict[float, list[float]] = {}
    for confidence, accuracy in rows:
        groups.setdefault(confidence, []).append(accuracy)
    mean = {confidence: math.fsum(group) / len(group) for confidence, group in groups.items()}
    return [(confidence, mean[confidence]) for confidence, _ in rows]
