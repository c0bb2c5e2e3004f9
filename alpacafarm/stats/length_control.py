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

# Shapes: M models, N rows, Q nodes of the difficulty's distribution, K parameters of a model, P all of them.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FEWEST_ROWS = 10  # with a verdict; below, three parameters say nothing
FEWEST_MODELS = 3  # that tell how difficult a row is: with two, half of it would be the model's own verdict
# Of the judge's length preference. GPT-4's published ones are about -2, which some hundred rows show whatever
# the prior; it counts where hardly any answer is as long as the baseline's, and the rows show little.
COMMON_SD = 1.0
OWN_SD = 0.5  # of a model's preference around the judge's; published ones deviate by 0.2
DIFFICULTY_SD = 0.2  # of psi around 1, which d_i was estimated with
NODES = 15
NONE = 1e-3  # a deviation so small that a parameter stays at its prior mean
NEWTON_STEPS = 200
MOST_AT_ONCE = 3.0  # in logits: the first step of nearly separated rows may overshoot
TOLERANCE = 1e-8  # of a Newton step
TOLERANCE_ESTIMATED = 1e-5  # with an estimated difficulty steps go on more slowly, by a factor of about 0.9


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
    return float(100 * _sigmoid(bias + psi * np.asarray(difficulty_N, float)).mean())


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
    flat = _fit(data, common_sd=NONE, own_sd=NONE)
    common = _fit(data, common_sd=COMMON_SD, own_sd=NONE, start=flat.theta_P)
    own = common
    if len(models) > 1:
        own = _fit(data, common_sd=COMMON_SD, own_sd=OWN_SD, start=common.theta_P)
    log_odds = common.log_likelihood - flat.log_likelihood - 0.5 * np.log(data.weight_MN.sum())
    weight = float(_sigmoid(np.asarray(log_odds)))
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


@dataclass(frozen=True)
class _Data:
    won_MN: Array
    weight_MN: Array  # 1 with a verdict, else 0
    there_MN: Array  # 1 where the model has the row
    feature_MNK: Array  # 1, d_i where it is given, the length term
    difficulty: str

    @property
    def estimates(self) -> bool:
        return self.difficulty == "estimated"


def _data(models: Sequence[Rated], difficulty_N: Sequence[float] | None) -> _Data:
    won_MN = np.array([rated.won_N for rated in models], float)
    longer_MN = np.array([rated.longer_N for rated in models], float)
    sd_M1 = np.nanstd(longer_MN, axis=1, ddof=1, keepdims=True)
    length_MN = np.tanh(np.nan_to_num(longer_MN / sd_M1))
    there_MN = ~np.isnan(longer_MN)
    features, told = [np.ones_like(length_MN)], "estimated" if len(models) >= FEWEST_MODELS else "none"
    if difficulty_N is not None:
        told = "given"
        features.append(np.broadcast_to(np.asarray(difficulty_N, float), length_MN.shape))
    return _Data(
        won_MN=np.nan_to_num(won_MN, nan=0.5),
        weight_MN=(there_MN & ~np.isnan(won_MN)).astype(float),
        there_MN=there_MN.astype(float),
        feature_MNK=np.stack([*features, length_MN], axis=-1),
        difficulty=told,
    )


@dataclass(frozen=True)
class _Fit:
    """The last two of `theta_P` are the judge's length preference and the deviation of the difficulty."""

    theta_P: Array
    log_likelihood: float
    rate_M: Array
    influence_MN: Array  # of each row on each rate: infinitesimal jackknife


def _fit(data: _Data, *, common_sd: float, own_sd: float, start: Array | None = None) -> _Fit:
    """The posterior mode by Newton steps; with an estimated difficulty, on the complete likelihood."""
    M, _, K = data.feature_MNK.shape
    mean_P, precision_PP = _prior(M, K, common_sd, own_sd)
    theta_P = mean_P.copy() if start is None else start
    for _ in range(NEWTON_STEPS):
        seen = _Seen(data, theta_P)
        slope_P = seen.scores().sum(1) - precision_PP @ (theta_P - mean_P)
        step_P = np.linalg.solve(seen.information() + precision_PP, slope_P)
        step_P /= max(1.0, np.abs(step_P).max() / MOST_AT_ONCE)
        theta_P = theta_P + step_P
        theta_P[-1] = abs(theta_P[-1])
        if np.abs(step_P).max() < (TOLERANCE_ESTIMATED if data.estimates else TOLERANCE):
            break
    seen = _Seen(data, theta_P)
    score_PN = seen.scores()
    # The marginal likelihood's information is not the complete one's; the scores' outer product estimates it.
    known_PP = score_PN @ score_PN.T if data.estimates else seen.information()
    rate_M, slope_MP, deviation_MN = seen.rates()
    influence_MN = deviation_MN + slope_MP @ np.linalg.solve(known_PP + precision_PP, score_PN)
    return _Fit(theta_P, seen.log_likelihood, rate_M, influence_MN)


def _prior(M: int, K: int, common_sd: float, own_sd: float) -> tuple[Array, Array]:
    """Means and precisions. A bias has none, but for a trace that keeps the system regular."""
    P = M * K + 2
    mean_P, precision_PP = np.zeros(P), np.diag(np.full(P, 1e-8))
    mean_P[-1] = 1.0  # where the search for the deviation starts; zero would be a saddle
    common = P - 2
    precision_PP[common, common] += 1 / common_sd**2
    for m in range(M):
        own = m * K + K - 1
        precision_PP[own, own] += 1 / own_sd**2
        precision_PP[common, common] += 1 / own_sd**2
        precision_PP[own, common] = precision_PP[common, own] = -1 / own_sd**2
        if K == 3:
            mean_P[m * K + 1] = 1.0
            precision_PP[m * K + 1, m * K + 1] += 1 / DIFFICULTY_SD**2
    return mean_P, precision_PP


class _Seen:
    """The rows under one set of parameters: likelihood, and its derivatives by row."""

    def __init__(self, data: _Data, theta_P: Array) -> None:
        self.data = data
        self.M, self.N, self.K = data.feature_MNK.shape
        self.beta_MK, self.sd = theta_P[:-2].reshape(self.M, self.K), float(theta_P[-1])
        self.node_Q, mass_Q = _nodes() if data.estimates else (np.zeros(1), np.ones(1))
        logit_MN = np.einsum("mnk,mk->mn", data.feature_MNK, self.beta_MK)
        logit_MNQ = logit_MN[..., None] + self.sd * self.node_Q
        self.p_MNQ = _sigmoid(logit_MNQ)
        each_MNQ = data.weight_MN[..., None] * (
            data.won_MN[..., None] * logit_MNQ - np.logaddexp(0, logit_MNQ)
        )
        joint_NQ = each_MNQ.sum(0) + np.log(mass_Q)
        row_N1 = np.logaddexp.reduce(joint_NQ, axis=1, keepdims=True)
        self.log_likelihood = float(row_N1.sum())
        self.posterior_NQ = np.exp(joint_NQ - row_N1)
        self.residual_MNQ = data.weight_MN[..., None] * (data.won_MN[..., None] - self.p_MNQ)

    def scores(self) -> Array:
        """Of each row's likelihood, by Fisher's identity the posterior mean of the complete one's."""
        residual_MNQ = self.residual_MNQ * self.posterior_NQ
        own_MKN = np.einsum("mn,mnk->mkn", residual_MNQ.sum(2), self.data.feature_MNK)
        sd_N = np.einsum("mnq,q->n", residual_MNQ, self.node_Q)
        return np.vstack([own_MKN.reshape(self.M * self.K, self.N), np.zeros((1, self.N)), sd_N[None]])

    def information(self) -> Array:
        """Of the complete likelihood; models meet only in the difficulty's deviation, which is left apart."""
        spread_MNQ = self.data.weight_MN[..., None] * self.p_MNQ * (1 - self.p_MNQ) * self.posterior_NQ
        feature_MNK = self.data.feature_MNK
        block_MKK = np.einsum("mn,mnk,mnl->mkl", spread_MNQ.sum(2), feature_MNK, feature_MNK)
        P = self.M * self.K + 2
        found_PP = np.zeros((P, P))
        for m in range(self.M):
            here = slice(m * self.K, (m + 1) * self.K)
            found_PP[here, here] = block_MKK[m]
        found_PP[-1, -1] = np.einsum("mnq,q->", spread_MNQ, self.node_Q**2)
        return found_PP

    def rates(self) -> tuple[Array, Array, Array]:
        """Win rates at equal length, their slopes by parameter, and each row's own part in them."""
        there_MN = self.data.there_MN / self.data.there_MN.sum(1, keepdims=True)
        level_MN = np.einsum("mnk,mk->mn", self.data.feature_MNK[..., :-1], self.beta_MK[:, :-1])
        equal_MNQ = _sigmoid(level_MN[..., None] + self.sd * self.node_Q)
        equal_MN = (equal_MNQ * self.posterior_NQ).sum(2)
        rate_M = (there_MN * equal_MN).sum(1)
        slope_MNQ = there_MN[..., None] * equal_MNQ * (1 - equal_MNQ) * self.posterior_NQ
        slope_MP = np.zeros((self.M, self.M * self.K + 2))
        own_MK = np.einsum("mn,mnk->mk", slope_MNQ.sum(2), self.data.feature_MNK)
        for m in range(self.M):
            slope_MP[m, m * self.K : (m + 1) * self.K - 1] = own_MK[m, :-1]
        slope_MP[:, -1] = np.einsum("mnq,q->m", slope_MNQ, self.node_Q)
        if self.data.estimates:
            slope_MP += self._slopes_by_posterior(there_MN[..., None] * (equal_MNQ - equal_MN[..., None]))
        return rate_M, slope_MP, there_MN * (equal_MN - rate_M[:, None])

    def _slopes_by_posterior(self, centred_MNQ: Array) -> Array:
        """The rows' posteriors move with the parameters: covariances of rate and complete score."""
        weighted = (centred_MNQ * self.posterior_NQ).reshape(self.M, -1)
        columns = [
            weighted @ (self.residual_MNQ * self.data.feature_MNK[..., k, None]).reshape(self.M, -1).T
            for k in range(self.K)
        ]
        own_MP = np.stack(columns, axis=-1).reshape(self.M, self.M * self.K)
        sd_M = weighted @ (self.residual_MNQ.sum(0) * self.node_Q).reshape(-1)
        return np.hstack([own_MP, np.zeros((self.M, 1)), sd_M[:, None]])


def _nodes() -> tuple[Array, Array]:
    """Gauss-Hermite nodes and masses of a standard normal."""
    node_Q, mass_Q = np.polynomial.hermite_e.hermegauss(NODES)
    return node_Q, mass_Q / mass_Q.sum()


def _sigmoid(x: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
