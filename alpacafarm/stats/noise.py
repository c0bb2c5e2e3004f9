"""Label noise of simulated annotators (Dubois et al. 2023, section 3; arXiv:2305.14387).

A label is flipped with probability p by replacing it, with probability 2p, with a fair coin. The coins come
first, so a replaced row costs no judgement: at p = 0.25, half of the bill.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from alpacafarm.stats.seeds import stable_seed


@dataclass(frozen=True)
class Fate:
    row_id: str
    coin: int | None  # the preference, 1 or 2, that replaces the judge's; None if the judge is asked

    @property
    def is_judged(self) -> bool:
        return self.coin is None


def flips(row_ids: Sequence[str], p: float, seed: int) -> list[Fate]:
    """What happens to each row, in order. A row's fate depends on its id and the seed, not on its neighbours.

    Rows replaced at some p are replaced, by the same coin, at every larger p: rows judged at one noise level
    include those judged at a higher one.
    """
    check_flip_probability(p)
    return [_fate(row_id, p, seed) for row_id in row_ids]


def check_flip_probability(p: float) -> float:
    if not 0 <= p <= 0.5:
        raise ValueError(f"label flip probability is {p}, must be between 0 and 0.5 (0.5 is pure chance)")
    return p


def _fate(row_id: str, p: float, seed: int) -> Fate:
    rng = random.Random(stable_seed("label noise", seed, row_id))
    is_replaced = rng.random() < 2 * p
    coin = 1 if rng.random() < 0.5 else 2
    return Fate(row_id, coin if is_replaced else None)
