"""A pool of scored samples and its quantiles: what Quark trains on.

Shapes: B rows of a micro-batch, T positions of the longest response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from alpacafarm.stats.select import quantiles
from alpacafarm.text.collate import OverSequences, SequenceBatch


@dataclass(frozen=True)
class Sample:
    """A response of some step to the prompt at `place`, and its raw score."""

    step: int
    place: int
    response: tuple[int, ...]
    ended: bool
    score: float


def kept(samples: Sequence[Sample], *, since: int) -> list[list[Any]]:
    """Those of step `since` and later, as plain JSON values: what the state of a training loop may hold."""
    return [[s.step, s.place, list(s.response), s.ended, s.score] for s in samples if s.step >= since]


def restored(values: Sequence[Sequence[Any]]) -> list[Sample]:
    """What `kept` gave."""
    return [Sample(step, place, tuple(ids), ended, score) for step, place, ids, ended, score in values]


def pool_quantiles(
    samples: Sequence[Sample], k: int, *, fidelity: Literal["corrected", "published"], world: int
) -> list[int]:
    """Quantile of each sample, 0 the best.

    Over all ranks together (`corrected`), or over each rank's own samples (`published`), which makes the
    result depend on the number of ranks. A step's samples are in the order of their numbers, which the ranks
    take in turn; each rank has equally many.
    """
    if fidelity == "corrected":
        return quantiles([s.score for s in samples], k)
    found = [0] * len(samples)
    for rank in range(world):
        found[rank::world] = quantiles([s.score for s in samples[rank::world]], k)
    return found


@dataclass(frozen=True)
class QuantileBatch(OverSequences):
    """A micro-batch whose prompts may begin with a control token.

    Weight: response tokens (`corrected`), or every position up to the longest possible (`published`).
    """

    plain: SequenceBatch  # the same responses to the prompts without control tokens
