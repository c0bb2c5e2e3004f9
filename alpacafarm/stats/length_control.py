"""Win rates at equal length: what a judge would say if both answers were equally long.

Dubois et al. 2024 (arXiv:2404.04475, eq. 2), as alpaca-eval fits it (metrics/glm_winrate.py): the probability
that model m wins row i is

    sigmoid(b_m + psi_m d_i + w_m tanh((len_base - len_m) / sd_m)),

and the length-controlled win rate is its mean over the rows without the length term. d_i is the row's
difficulty. Where none is known, three or more models that share rows estimate it together, as a normal random
effect (d_i is integrated out, its deviation fitted); a single model goes without, d_i = 0.

Where we differ from alpaca-eval, which takes an L1 penalty on everything by cross-validation and rows of two
gamed baselines: the length preference belongs to the judge, so the w_m of one judge share a normal prior
around their common value; and the fit is averaged with one without lengths by their BIC weights (Raftery
1995, eq. 25). So a judge that ignores length leaves the win rate as it is, however long the answers were
padded.
"""

# Shapes: M models, N rows, K parameters of a model, P all of them.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alpacafarm.stats.length_fit import Data, fit, sigmoid

FEWEST_ROWS = 10  # with a verdict; below, three parameters say nothing
FEWEST_MODELS = 3  # that tell how difficult a row is: with two, half of it would be the model's own verdict
# Of the judge's length preference. GPT-4's published ones are about -2, which some hundred rows show whatever
# the prior; it counts where hardly any answer is as long as the baseline's, and the rows show little.
COMMON_SD = 1.0
OWN_SD = 0.5  # of a model's preference around the judge's; published ones deviate by 0.2
NONE = 1e-3  # a deviation so small that a parameter stays at its prior mean


@dataclass(frozen=True)
class Rated:
    """One model's verdicts against one baseline. Rows are aligned between models; NaN is no verdict."""

    won_N: Sequence[float]  # share of the win that goes to the model, in [0, 1]
    longer_N: Sequence[float]  # len_base - len_model in characters; NaN where the model has no such row


@dataclass(frozen=True)
class LengthControlled:
    """`win_rate` and `standard_error` in percent, None where there is nothing to fit; `reason` says why.

    The error is over instructions. `length_weight` is the probability that the judge minds length at all.
    """

    win_rate: float | None
    standard_error: float | None
    reason: str | None = None
    length_coefficient: float | None = None
    length_weight: float | None = None
    difficulty: str = "none"  # given, estimated, none, not needed


def length_controlled(
    models: Sequence[Rated], difficulty_N: Sequence[float] | None = None
) -> list[LengthControlled]:
    """Of each model, fitted together. They have one judge and one baseline.

    A model whose answers are all as long as the baseline's keeps its win rate: there is nothing to control.
    """
    found: dict[int, LengthControlled] = {}
    for m, rated in enumerate(models):
        if (without := _without_a_fit(rated)) is not None:
            found[m] = without
    fitted = [m for m in range(len(models)) if m not in found]
    if fitted:
        found |= dict(zip(fitted, _fitted([models[m] for m in fitted], difficulty_N), strict=True))
    return [found[m] for m in range(len(models))]


def published(bias: float, psi: float, difficulty_N: Sequence[float]) -> float:
    """The win rate in percent that weights fitted elsewhere give at equal lengths."""
    return float(100 * sigmoid(bias + psi * np.asarray(difficulty_N, float)).mean())


def _without_a_fit(rated: Rated) -> LengthControlled | None:
    won, longer = np.asarray(rated.won_N, float), np.asarray(rated.longer_N, float)
    won = won[~np.isnan(won) & ~np.isnan(longer)]
    lengths = longer[~np.isnan(longer)]
    if won.size < FEWEST_ROWS:
        return _none(f"{won.size} rows with a verdict and lengths; at least {FEWEST_ROWS} are required")
    if (lengths == 0).all():
        error = won.std(ddof=1) / np.sqrt(won.size)
        return LengthControlled(
            float(100 * won.mean()), float(100 * error), length_weight=0.0, difficulty="not needed"
        )
    if np.ptp(lengths) == 0:
        return _none("the answers differ from the baseline's by the same length in every row")
    if won.min() == 1 or won.max() == 0:
        return _none(f"every row is {'won' if won.min() == 1 else 'lost'}, at whatever length")
    return None


def _none(reason: str) -> LengthControlled:
    return LengthControlled(None, None, reason)


def _fitted(models: Sequence[Rated], difficulty_N: Sequence[float] | None) -> list[LengthControlled]:
    data = _data(models, difficulty_N)
    flat = fit(data, common_sd=NONE, own_sd=NONE)
    common = fit(data, common_sd=COMMON_SD, own_sd=NONE, start=flat.theta_P)
    own = common
    if len(models) > 1:
        own = fit(data, common_sd=COMMON_SD, own_sd=OWN_SD, start=common.theta_P)
    log_odds = common.log_likelihood - flat.log_likelihood - 0.5 * np.log(data.weight_MN.sum())
    weight = float(sigmoid(np.asarray(log_odds)))
    rate_M = weight * own.rate_M + (1 - weight) * flat.rate_M
    # Buckland, Burnham and Augustin 1997, eq. 9: also over which of the two is true.
    between_M = weight * (1 - weight) * (own.rate_M - flat.rate_M) ** 2
    within_M = ((weight * own.influence_MN + (1 - weight) * flat.influence_MN) ** 2).sum(1)
    error_M = np.sqrt(within_M + between_M)
    coefficient_M = own.theta_P[:-2].reshape(len(models), -1)[:, -1]
    return [
        LengthControlled(
            float(100 * rate), float(100 * error), None, float(coefficient), weight, data.difficulty
        )
        for rate, error, coefficient in zip(rate_M, error_M, coefficient_M, strict=True)
    ]


def _data(models: Sequence[Rated], difficulty_N: Sequence[float] | None) -> Data:
    won_MN = np.array([rated.won_N for rated in models], float)
    longer_MN = np.array([rated.longer_N for rated in models], float)
    sd_M1 = np.nanstd(longer_MN, axis=1, ddof=1, keepdims=True)
    length_MN = np.tanh(np.nan_to_num(longer_MN / sd_M1))
    there_MN = ~np.isnan(longer_MN)
    features, told = [np.ones_like(length_MN)], "estimated" if len(models) >= FEWEST_MODELS else "none"
    if difficulty_N is not None:
        told = "given"
        features.append(np.broadcast_to(np.asarray(difficulty_N, float), length_MN.shape))
    return Data(
        won_MN=np.nan_to_num(won_MN, nan=0.5),
        weight_MN=(there_MN & ~np.isnan(won_MN)).astype(float),
        there_MN=there_MN.astype(float),
        feature_MNK=np.stack([*features, length_MN], axis=-1),
        difficulty=told,
    )
