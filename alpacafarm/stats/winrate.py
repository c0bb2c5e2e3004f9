"""Win rates with their uncertainty, as AlpacaEval defines them.

A preference is 2 where the model under test is preferred, 1 where the baseline is, 1.5 for a tie (older files
code it as 0), between for a judge that gives probabilities, and None where no verdict was obtained.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from alpacafarm.stats.interval import Interval, percentile_interval


@dataclass(frozen=True)
class WinRate:
    win_rate: float  # percent, a tie is half a win
    standard_error: float | None  # percent; None for a single instruction, whose spread is unknown
    n_total: int  # with a verdict
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_failures: int  # without a verdict, not in n_total
    discrete_win_rate: float  # percent, probabilities rounded to win, draw or loss


def win_rate(preferences: Sequence[float | None]) -> WinRate:
    """100 * mean(preference - 1) over the rows with a verdict, and its standard error over them."""
    return win_rate_by_instruction([[preference] for preference in preferences])


def win_rate_by_instruction(groups: Sequence[Sequence[float | None]]) -> WinRate:
    """The win rate where each instruction was compared several times.

    Draws of one instruction are not independent, so the instruction is the unit: its draws are averaged
    first, and the standard error and all counts are over instructions, but for `n_failures`: lost draws.
    """
    drawn = [[_won(preference) for preference in group if preference is not None] for group in groups]
    won = [math.fsum(draws) / len(draws) for draws in drawn if draws]
    n_failures = sum(map(len, groups)) - sum(map(len, drawn))
    if not won:
        raise ValueError(f"no verdict in {len(groups)} rows ({n_failures} judgements failed)")
    mean, standard_error = mean_and_se(won)
    n_wins, n_draws = sum(y > 0.5 for y in won), sum(y == 0.5 for y in won)
    return WinRate(
        win_rate=100 * mean,
        standard_error=None if standard_error is None else 100 * standard_error,
        n_total=len(won),
        n_wins=n_wins,
        n_wins_base=len(won) - n_wins - n_draws,
        n_draws=n_draws,
        n_failures=n_failures,
        discrete_win_rate=100 * (n_wins + n_draws / 2) / len(won),
    )


def mean_and_se(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard error sd / sqrt(n), sd with n - 1 in the denominator; None for a single value."""
    n = len(values)
    if n == 0:
        raise ValueError("no values to take a mean of")
    mean = math.fsum(values) / n
    if n == 1:
        return mean, None
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance / n)


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], *, seed: int, draws: int, level: float = 0.95
) -> Interval:
    """mean(a) - mean(b) with a percentile interval over resampled rows (Efron and Tibshirani 1993, ch. 13).

    Row i of both belongs to one instruction: what makes an instruction hard for both cancels.
    """
    difference = [x - y for x, y in zip(a, b, strict=True)]
    n = len(difference)
    if n == 0:
        raise ValueError("no rows to compare")
    rng = random.Random(seed)
    means = [math.fsum(rng.choices(difference, k=n)) / n for _ in range(draws)]
    return percentile_interval(math.fsum(difference) / n, means, level)


def _won(preference: float) -> float:
    """Share of the win that goes to the model, in [0, 1]."""
    if preference == 0:
        return 0.5
    if not 1 <= preference <= 2:
        raise ValueError(f"preference {preference} is not in [1, 2] (or 0, a tie); a failure is None")
    return preference - 1
