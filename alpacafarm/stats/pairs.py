"""Which samples of an instruction are compared with each other.

As `annotate_samples` of tatsu-lab/alpaca_farm: duplicates are removed, then every sample meets the one that a
random derangement assigns to it. One pair per instruction is the first of them.
"""

import random
from collections.abc import Sequence


def pair_samples(outputs: Sequence[str], seed: int) -> tuple[int, int] | None:
    """Indices of the two samples to compare; None if all samples are the same text."""
    pairs = derangement_pairs(outputs, seed)
    return pairs[0] if pairs else None


def derangement_pairs(outputs: Sequence[str], seed: int) -> list[tuple[int, int]]:
    """Index pairs of different texts: each distinct text stands first in one and second in one."""
    distinct = [i for i, output in enumerate(outputs) if output not in outputs[:i]]
    if len(distinct) < 2:
        return []
    partner = derangement(len(distinct), random.Random(seed))
    return [(i, distinct[j]) for i, j in zip(distinct, partner, strict=True)]


def derangement(n: int, rng: random.Random) -> list[int]:
    """A permutation of range(n) that moves every element, uniform among those."""
    if n == 1:
        raise ValueError("a single element has no derangement")
    order = list(range(n))
    while True:  # one shuffle in e = 2.7 moves every element
        rng.shuffle(order)
        if all(i != j for i, j in enumerate(order)):
            return order
