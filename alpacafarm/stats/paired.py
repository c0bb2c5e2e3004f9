"""Two models on the same rows: how far their win rates are apart, and who wins more rows.

A share is what goes to the model in one row, in [0, 1] (`preference - 1`); rows are joined by their identity.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from alpacafarm.stats.interval import percentile_interval

Row = TypeVar("Row", bound=Hashable)
DRAWS = 2000  # of the bootstrap


@dataclass(frozen=True)
class Difference:
    """`estimate`, `low` and `high` in percentage points: the first model's win rate less the second's."""

    estimate: float
    low: float
    high: float
    p: float  # two-sided, of no difference
    n_total: int  # rows that both have a verdict on
    n_better: int  # of these, the first model has the larger share
    n_worse: int
    n_ties: int

    @property
    def mirrored(self) -> Difference:
        """The second model's win rate less the first's."""
        return Difference(
            -self.estimate,
            -self.high,
            -self.low,
            self.p,
            self.n_total,
            self.n_worse,
            self.n_better,
            self.n_ties,
        )


def difference(
    a: Mapping[Row, float], b: Mapping[Row, float], *, seed: int, draws: int, level: float = 0.95
) -> Difference | None:
    """A paired bootstrap over rows (Efron and Tibshirani 1993, ch. 13); None where no row is shared.

    The p-value is twice the smaller share of draws on either side of zero, with one added to both counts
    (Davison and Hinkley 1997, eq. 4.11), so it is at least 2 / (draws + 1). Swapping the models mirrors all.
    """
    rows = sorted(a.keys() & b.keys(), key=repr)
    if not rows:
        return None
    gap = np.array([a[row] - b[row] for row in rows])
    n = len(rows)
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(n, np.full(n, 1 / n), size=draws) @ gap / n
    interval = percentile_interval(float(gap.mean()), drawn.tolist(), level)
    either = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(
        estimate=100 * interval.estimate,
        low=100 * interval.low,
        high=100 * interval.high,
        p=min(1.0, 2 * (int(either) + 1) / (draws + 1)),
        n_total=n,
        n_better=int((gap > 0).sum()),
        n_worse=int((gap < 0).sum()),
        n_ties=int((gap == 0).sum()),
    )


@dataclass(frozen=True)
class Duel:
    """Verdicts on two models' answers to the same rows, as they concern the first of them."""

    win_rate: float  # percent; the other's is 100 less this
    n_total: int


def head_to_head(
    verdicts: Sequence[tuple[str, str, float]],
) -> tuple[list[str], dict[tuple[str, str], Duel]]:
    """The names, and each two that met: from (first, second, the second's share) of every judged pair.

    A pair counts the same in whichever order its answers stood, so that a cell and its mirror add up to 100.
    Models that were never compared have no cell, and neither has a model with itself.
    """
    shares: dict[tuple[str, str], list[float]] = {}
    for first, second, share in verdicts:
        if first != second:
            shares.setdefault((second, first), []).append(share)
            shares.setdefault((first, second), []).append(1 - share)
    names = sorted({name for pair in shares for name in pair})
    rate = {pair: float(np.mean(found)) for pair, found in shares.items() if pair[0] < pair[1]}
    # The mirror is computed from the cell: two means of the same rows may differ in the last bit.
    cells = {pair: Duel(100 * value, len(shares[pair])) for pair, value in rate.items()}
    cells |= {(b, a): Duel(100 - duel.win_rate, duel.n_total) for (a, b), duel in list(cells.items())}
    return names, cells
