"""The fit behind the length-controlled win rate: a logistic regression of several models at once.

The logit of model m in row i is the sum of its parameters times the row's features, and where difficulties
are estimated of sd * x_i, x_i a standard normal that is integrated out by quadrature.
"""

# Shapes: M models, N rows, Q nodes of the difficulty's distribution, K parameters of a model, P all of them.

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DIFFICULTY_SD = 0.2  # of the coefficient of a given difficulty around 1, which it was estimated with
NODES = 15  # of the quadrature
NEWTON_STEPS = 200
MOST_AT_ONCE = 3.0  # in logits: the first step of nearly separated rows may overshoot
TOLERANCE = 1e-8  # of a step


@dataclass(frozen=True)
class Data:
    won_MN: Array
    weight_MN: Array  # 1 with a verdict, else 0
    there_MN: Array  # 1 where the model has the row
    feature_MNK: Array  # 1, d_i where it is given, the length term
    difficulty: str

    @property
    def estimates(self) -> bool:
        return self.difficulty == "estimated"


@dataclass(frozen=True)
class Fit:
    """The last two of `theta_P` are the judge's length preference and the deviation of the difficulty."""

    theta_P: Array
    log_likelihood: float
    rate_M: Array
    influence_MN: Array  # of each row on each rate: infinitesimal jackknife


def fit(data: Data, *, common_sd: float, own_sd: float, start: Array | None = None) -> Fit:
    """The posterior mode by Newton steps, halved where they overshoot."""
    M, _, K = data.feature_MNK.shape
    mean_P, precision_PP = _prior(M, K, common_sd, own_sd)

    def height(seen: _Seen) -> float:
        gap_P = seen.theta_P - mean_P
        return seen.log_likelihood - 0.5 * float(gap_P @ precision_PP @ gap_P)

    seen = _Seen(data, mean_P if start is None else start)
    for _ in range(NEWTON_STEPS):
        slope_P = seen.scores().sum(1) - precision_PP @ (seen.theta_P - mean_P)
        step_P = np.linalg.solve(seen.information() + precision_PP, slope_P)
        if step_P @ slope_P < 0:  # the marginal likelihood is not concave everywhere
            step_P = np.linalg.solve(seen.information(complete=True) + precision_PP, slope_P)
        step_P /= max(1.0, np.abs(step_P).max() / MOST_AT_ONCE)
        last = seen
        seen = _Seen(data, last.theta_P + step_P)
        while height(seen) < height(last) and np.abs(step_P).max() > TOLERANCE:
            step_P = step_P / 2
            seen = _Seen(data, last.theta_P + step_P)
        if np.abs(step_P).max() < TOLERANCE:
            break
    rate_M, slope_MP, deviation_MN = seen.rates()
    moved_PN = np.linalg.solve(seen.information() + precision_PP, seen.scores())
    return Fit(seen.theta_P, seen.log_likelihood, rate_M, deviation_MN + slope_MP @ moved_PN)


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

    def __init__(self, data: Data, theta_P: Array) -> None:
        self.data = data
        self.theta_P = theta_P
        self.M, self.N, self.K = data.feature_MNK.shape
        self.P = theta_P.size
        self.beta_MK, self.sd = theta_P[:-2].reshape(self.M, self.K), float(theta_P[-1])
        self.node_Q, mass_Q = _nodes() if data.estimates else (np.zeros(1), np.ones(1))
        logit_MN = np.einsum("mnk,mk->mn", data.feature_MNK, self.beta_MK)
        logit_MNQ = logit_MN[..., None] + self.sd * self.node_Q
        self.p_MNQ = sigmoid(logit_MNQ)
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

    def information(self, *, complete: bool = False) -> Array:
        """Minus the second derivatives (Louis 1982): the complete likelihood's, which are always positive,
        less what is missing of them, the difficulty being unknown."""
        feature_MNK, node_Q = self.data.feature_MNK, self.node_Q
        spread_MNQ = self.data.weight_MN[..., None] * self.p_MNQ * (1 - self.p_MNQ) * self.posterior_NQ
        block_MKK = np.einsum("mn,mnk,mnl->mkl", spread_MNQ.sum(2), feature_MNK, feature_MNK)
        found_PP = np.zeros((self.P, self.P))
        for m in range(self.M):
            here = slice(m * self.K, (m + 1) * self.K)
            found_PP[here, here] = block_MKK[m]
        found_PP[:-2, -1] = np.einsum("mn,mnk->mk", spread_MNQ @ node_Q, feature_MNK).reshape(-1)
        found_PP[-1, :-2] = found_PP[:-2, -1]
        found_PP[-1, -1] = (spread_MNQ @ node_Q**2).sum()
        return found_PP if complete or not self.data.estimates else found_PP - self._missing()

    def _missing(self) -> Array:
        """The posterior covariances of the complete likelihood's scores."""
        root_MNQ = self.residual_MNQ * np.sqrt(self.posterior_NQ)
        own = np.einsum("mnq,mnk->mknq", root_MNQ, self.data.feature_MNK).reshape(self.P - 2, -1)
        sd = (root_MNQ.sum(0) * self.node_Q).reshape(1, -1)
        each = np.vstack([own, np.zeros_like(sd), sd])
        mean_PN = self.scores()
        return np.asarray(each @ each.T - mean_PN @ mean_PN.T)

    def rates(self) -> tuple[Array, Array, Array]:
        """Win rates at equal length, their slopes by parameter, and each row's own part in them."""
        there_MN = self.data.there_MN / self.data.there_MN.sum(1, keepdims=True)
        level_MN = np.einsum("mnk,mk->mn", self.data.feature_MNK[..., :-1], self.beta_MK[:, :-1])
        equal_MNQ = sigmoid(level_MN[..., None] + self.sd * self.node_Q)
        equal_MN = (equal_MNQ * self.posterior_NQ).sum(2)
        rate_M = (there_MN * equal_MN).sum(1)
        slope_MNQ = there_MN[..., None] * equal_MNQ * (1 - equal_MNQ) * self.posterior_NQ
        slope_MP = np.zeros((self.M, self.P))
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


def sigmoid(x: Array) -> Array:
    return np.asarray(np.exp(-np.logaddexp(0, -x)))
