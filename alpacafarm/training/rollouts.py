"""Rollouts: responses with everything that the update needs to know of them.

Shapes: B this rank's rollouts, T positions of the longest response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from alpacafarm.ops.advantage import gae, shaped_rewards
from alpacafarm.ops.kl import clamped, estimate, k1, k3
from alpacafarm.ops.masked import Moments, moments, scale, whiten
from alpacafarm.ports import Dist
from alpacafarm.text.collate import OverSequences, SequenceBatch

Fidelity = Literal["corrected", "published"]


@dataclass(frozen=True)
class Rollouts:
    """One collection on one rank. Per-token tensors are zero on padding."""

    ended_B: Tensor
    mask_BT: Tensor
    logprob_BT: Tensor  # of the policy that sampled
    reference_logprob_BT: Tensor
    raw: Sequence[float]  # scores as the reward model gave them
    score_B: Tensor  # standardised, penalties included


@dataclass(frozen=True)
class CriticRollouts(Rollouts):
    """With a critic's opinion of them."""

    value_BT: Tensor  # V(s_t), before token t


@dataclass(frozen=True)
class Shaping:
    """How scores become advantages; `published` reproduces alpaca_farm's rl/ppo_trainer.py."""

    kl_coef: float
    reward_std: float  # the unit of the score, against which `kl_coef` is measured
    gamma: float
    lam: float
    whiten_rewards: bool
    fidelity: Fidelity

    @property
    def estimator(self) -> Literal["k1", "clamped"]:
        """Per-token KL in the reward: log p - log q, or its positive part as published."""
        return "clamped" if self.fidelity == "published" else "k1"


@dataclass(frozen=True)
class Advantages:
    advantage_BT: Tensor
    return_BT: Tensor
    reward_BT: Tensor


def advantages(rollouts: CriticRollouts, shaping: Shaping, dist: Dist, width: int) -> Advantages:
    """Shaped rewards, GAE and whitening.

    `corrected`: over the response tokens, with statistics of all ranks; rewards are scaled to root mean
    square one. `published`, as alpaca_farm's `_estimate_advantage`: over every position up to `width`,
    padding included, with statistics of this rank alone, so that they depend on the number of devices. Its
    whitened rewards have their mean added back, which leaves the constant mean * (1 - 1 / deviation) on every
    position: each token is paid or priced, depending on where the reward model has its zero. Not reproduced:
    its critic reads and learns values on padding too; here they are zero and have no loss. At gamma =
    lambda = 1 only the whitening of advantages sees the difference.

    The reward is `reward_std * score - kl_coef * KL` (Ziegler et al. 2019, eq. 2), divided by `reward_std` so
    that the critic sees values of order one; whitened advantages do not depend on that division.
    """
    mask_BT, value_BT, time = rollouts.mask_BT, rollouts.value_BT, rollouts.mask_BT.size(1)
    kl_BT = estimate(shaping.estimator, rollouts.logprob_BT, rollouts.reference_logprob_BT)
    reward_BT = shaped_rewards(rollouts.score_B, kl_BT, mask_BT, kl_coef=shaping.kl_coef / shaping.reward_std)
    if shaping.fidelity == "published":
        reward_BT, value_BT = (F.pad(x_BT, (0, width - time)) for x_BT in (reward_BT, value_BT))
        mask_BT = torch.ones_like(reward_BT, dtype=torch.bool)
    if shaping.whiten_rewards:
        population = _population(reward_BT, mask_BT, shaping, dist)
        if shaping.fidelity == "published":
            reward_BT = whiten(reward_BT, mask_BT, population) + population.mean
        else:
            reward_BT = scale(reward_BT, mask_BT, population)
    advantage_BT = gae(reward_BT, value_BT, mask_BT, gamma=shaping.gamma, lam=shaping.lam)
    return_BT = advantage_BT + value_BT
    population = _population(advantage_BT, mask_BT, shaping, dist)
    white_BT = whiten(advantage_BT, mask_BT, population)
    return Advantages(white_BT[:, :time], return_BT[:, :time], reward_BT[:, :time])


def _population(x_BT: Tensor, mask_BT: Tensor, shaping: Shaping, dist: Dist) -> Moments:
    found = moments(x_BT, mask_BT)
    return found if shaping.fidelity == "published" else of_all_ranks(found, dist)


def of_all_ranks(found: Moments, dist: Dist) -> Moments:
    return found.combined(lambda x: torch.tensor(dist.total(x.tolist()), dtype=torch.float64))


@dataclass(frozen=True)
class RolloutBatch(OverSequences):
    """A micro-batch of PPO. Weight: response tokens (`corrected`), or every position (`published`)."""

    logprob_BT: Tensor
    value_BT: Tensor
    advantage_BT: Tensor
    return_BT: Tensor


def cut(
    sequences: Sequence[SequenceBatch],
    indices: Sequence[Sequence[int]],
    rollouts: CriticRollouts,
    found: Advantages,
    *,
    fidelity: Fidelity,
    width: int,
) -> list[RolloutBatch]:
    """Micro-batches on the same rows as `sequences`."""
    batches = []
    for sequence, rows in zip(sequences, indices, strict=True):
        time = sequence.mask_BT.size(1)
        pick = torch.tensor(rows)
        batches.append(
            RolloutBatch(
                weight=float(len(rows) * width) if fidelity == "published" else sequence.weight,
                sequences=sequence,
                logprob_BT=rollouts.logprob_BT[pick, :time],
                value_BT=rollouts.value_BT[pick, :time],
                advantage_BT=found.advantage_BT[pick, :time],
                return_BT=found.return_BT[pick, :time],
            )
        )
    return batches


def rollout_metrics(
    rollouts: CriticRollouts, found: Advantages, dist: Dist, *, fidelity: Fidelity
) -> dict[str, float]:
    """`sample_metrics` and the critic's. `published` adds `kl/clamped`, the estimate penalised there."""
    mask = rollouts.mask_BT
    per_response = {"shaped_reward/mean": (found.reward_BT * mask).double().sum(1)}
    if fidelity == "published":
        clamped_BT = clamped(rollouts.logprob_BT, rollouts.reference_logprob_BT)
        per_response["kl/clamped"] = (clamped_BT * mask).double().sum(1)
    per_token = {"value/mean": rollouts.value_BT, "return/mean": found.return_BT}
    return sample_metrics(rollouts, dist, per_response, per_token)


def sample_metrics(
    rollouts: Rollouts,
    dist: Dist,
    per_response: Mapping[str, Tensor],
    per_token: Mapping[str, Tensor] | None = None,
) -> dict[str, float]:
    """Means over all ranks under fixed names. `kl` is k1 in nats per response, `kl/k3` is never negative.

    Args:
        per_response: further values to average, B each.
        per_token: the same, BT each.
    """
    mask = rollouts.mask_BT
    values_B = {
        "reward/mean": torch.tensor(rollouts.raw, dtype=torch.float64),
        "score/mean": rollouts.score_B.double(),
        "kl": (k1(rollouts.logprob_BT, rollouts.reference_logprob_BT) * mask).double().sum(1),
        "kl/k3": (k3(rollouts.logprob_BT, rollouts.reference_logprob_BT) * mask).double().sum(1),
        "response_tokens/mean": mask.double().sum(1),
        "eos_rate": rollouts.ended_B.double(),
        **per_response,
    }
    token_sums = {name: (x_BT * mask).double().sum() for name, x_BT in (per_token or {}).items()}
    sums = [x.sum().item() for x in values_B.values()] + [x.item() for x in token_sums.values()]
    totals = dist.total([*sums, float(mask.size(0)), float(mask.sum())])
    rows, tokens = totals[-2:]
    names = [*values_B, *token_sums]
    return {
        name: total / (rows if name in values_B else tokens)
        for name, total in zip(names, totals[:-2], strict=True)
    }
