"""One measure over the seeds of a setting: its mean, with two kinds of error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from alpacafarm.stats.winrate import mean_and_se

Value = tuple[float, float | None]  # of one seed, with its error over instructions


@dataclass(frozen=True)
class SeedMean:
    """A mean over seeds.

    `over_instructions` is the mean over seeds of the standard error of one run, as in the paper: what one
    run's number is worth. `over_seeds` is the standard error of the mean over seeds, None for a single one.
    """

    mean: float
    over_instructions: float | None
    over_seeds: float | None

    @property
    def error(self) -> float:
        """Of the mean, for the bootstrap: both as if they were independent.

        The seeds share their instructions, so the first does not shrink with their number. Some of it is in
        the second already: the sum is rather too large.
        """
        return math.hypot(self.over_instructions or 0.0, self.over_seeds or 0.0)


def seed_mean(values: Sequence[Value]) -> SeedMean:
    """A measure from its value for each seed."""
    mean, over_seeds = mean_and_se([value for value, _ in values])
    errors = [error for _, error in values if error is not None]
    return SeedMean(mean, math.fsum(errors) / len(errors) if errors else None, over_seeds)
