"""Rollouts: responses with everything that the update needs to know of them.

Shapes: B this rank's rollouts, T positions of the longest response.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alpacafarm.ops.advantage import gae, shaped_rewards
from alpacafarm.ops.kl import estimate, k1, k3
from alpacafarm.ops.masked import Moments, moments, whiten
from alpacafarm.ports import Dist
from alpacafarm.text.collate import Batch, SequenceBatch, Tokens, collate

Fidelity = Literal["corrected", "published"]


@dataclass(frozen=True)
class Rollouts:
    """One collection on one rank. Per-token tensors are zero on padding."""

    rows: Sequence[Tokens]
    ended_B: Tensor
    mask_BT: Tensor
    logprob_BT: Tensor  # of the policy that sampled
    reference_logprob_BT: Tensor
    value_BT: Tensor  # V(s_t), before token t
    score_B: Tensor  # standardised, penalties included


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


def advantages(rollouts: Rollouts, shaping: Shaping, dist: Dist, width: int) -> Advantages:
    """Shaped rewards, GAE and whitening.

    `corrected`: statistics over the response tokens of all ranks. `published`: over every position up to
    `width`, padding included, of this rank alone, so that they depend on the number of devices.

    The reward is `reward_std * score - kl_coef * KL` (Ziegler et al. 2019, eq. 2), divided by `reward_std` so
    that the critic sees values of order one; whitened advantages do not depend on that division.
    """
    mask = rollouts.mask_BT
    kl_BT = estimate(shaping.estimator, rollouts.logprob_BT, rollouts.reference_logprob_BT)
    reward_BT = shaped_rewards(rollouts.score_B, kl_BT, mask, kl_coef=shaping.kl_coef / shaping.reward_std)
    if shaping.whiten_rewards:
        reward_BT = whiten(
            reward_BT, mask, _population(reward_BT, mask, shaping, dist, width), shift_mean=False
        )
    advantage_BT = gae(reward_BT, rollouts.value_BT, mask, gamma=shaping.gamma, lam=shaping.lam)
    return_BT = advantage_BT + rollouts.value_BT
    white_BT = whiten(
        advantage_BT, mask, _population(advantage_BT, mask, shaping, dist, width), shift_mean=True
    )
    return Advantages(white_BT, return_BT, reward_BT)


def _population(x_BT: Tensor, mask_BT: Tensor, shaping: Shaping, dist: Dist, width: int) -> Moments:
    found = moments(x_BT, mask_BT)
    if shaping.fidelity == "published":
        return Moments(
            torch.tensor(float(mask_BT.size(0) * width), dtype=torch.float64), found.total, found.square
        )
    return found.combined(lambda x: torch.tensor(dist.total(x.tolist()), dtype=torch.float64))


@dataclass(frozen=True)
class RolloutBatch(Batch):
    """A micro-batch of PPO. Weight: response tokens (`corrected`), or every position (`published`)."""

    sequences: SequenceBatch
    logprob_BT: Tensor
    value_BT: Tensor
    advantage_BT: Tensor
    return_BT: Tensor

    @property
    def rows(self) -> int:
        return self.sequences.rows

    @property
    def real_tokens(self) -> int:
        return self.sequences.real_tokens

    @property
    def computed_tokens(self) -> int:
        return self.sequences.computed_tokens


def cut(
    sequences: Sequence[SequenceBatch],
    indices: Sequence[Sequence[int]],
    rollouts: Rollouts,
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


def collate_micro_batches(
    rows: Sequence[Tokens], cuts: Sequence[Sequence[int]], pad_id: int
) -> list[SequenceBatch]:
    return [collate([rows[i] for i in indices], pad_id) for indices in cuts]


def rollout_metrics(
    rollouts: Rollouts, found: Advantages, raw_scores: Sequence[float], dist: Dist
) -> dict[str, float]:
    """Means over all ranks under fixed names. `kl` is k1 in nats per response, `kl/k3` is never negative."""
    mask = rollouts.mask_BT
    per_response = {
        "reward/mean": torch.tensor(raw_scores, dtype=torch.float64),
        "score/mean": rollouts.score_B.double(),
        "kl": (k1(rollouts.logprob_BT, rollouts.reference_logprob_BT) * mask).double().sum(1),
        "kl/k3": (k3(rollouts.logprob_BT, rollouts.reference_logprob_BT) * mask).double().sum(1),
        "response_tokens/mean": mask.double().sum(1),
        "eos_rate": rollouts.ended_B.double(),
        "shaped_reward/mean": found.reward_BT.double().sum(1),
    }
    per_token = {
        "value/mean": (rollouts.value_BT * mask).double().sum(),
        "return/mean": (found.return_BT * mask).double().sum(),
    }
    sums = [x.sum().item() for x in per_response.values()] + [x.item() for x in per_token.values()]
    totals = dist.total([*sums, float(mask.size(0)), float(mask.sum())])
    rows, tokens = totals[-2:]
    names = [*per_response, *per_token]
    return {
        name: total / (rows if name in per_response else tokens)
        for name, total in zip(names, totals[:-2], strict=True)
    }
