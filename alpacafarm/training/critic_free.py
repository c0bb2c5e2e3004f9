"""Advantages without a critic, and the batches and the loss that they go into.

Shapes: B this rank's rollouts, T positions of the longest response.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alpacafarm.ops.advantage import (
    group_relative,
    leave_one_out,
    on_every_token,
    reward_to_go,
    shaped_rewards,
)
from alpacafarm.ops.kl import Estimator as KLEstimator
from alpacafarm.ops.kl import estimate
from alpacafarm.ops.masked import masked_sum, moments, whiten
from alpacafarm.ops.policy import PolicyTerms, clipped_surrogate
from alpacafarm.ports import Dist
from alpacafarm.text.collate import OverSequences, SequenceBatch
from alpacafarm.training.rollouts import Rollouts, of_all_ranks

Estimator = Literal["reinforce", "rloo", "grpo", "dr_grpo", "reinforce_pp"]
Normalisation = Literal["token", "sequence", "constant"]


@dataclass(frozen=True)
class Advantages:
    advantage_BT: Tensor
    reward_BT: Tensor  # per token: KL penalties, and the score on the last


def advantages(
    rollouts: Rollouts, dist: Dist, *, estimator: Estimator, group: int, kl_weight: float, kl: KLEstimator
) -> Advantages:
    """Of every response token. Padding has none.

    `reinforce`: the response's reward minus the mean of the whole step (Williams 1992). `rloo`, `grpo`,
    `dr_grpo`: relative to its group, see `ops.advantage`. `reinforce_pp`: the reward to go from each token,
    whitened over all tokens of the step (Hu 2025, arXiv:2501.03262).

    Args:
        kl_weight: of the KL penalty in the reward, beside scores as they are in `rollouts`; 0 for none.
    """
    mask_BT = rollouts.mask_BT
    kl_BT = estimate(kl, rollouts.logprob_BT, rollouts.reference_logprob_BT)
    reward_BT = shaped_rewards(rollouts.score_B, kl_BT, mask_BT, kl_coef=kl_weight)
    reward_B = reward_BT.sum(1)
    if estimator == "reinforce_pp":
        to_go_BT = reward_to_go(reward_BT, mask_BT)
        everywhere = of_all_ranks(moments(to_go_BT, mask_BT), dist)
        return Advantages(whiten(to_go_BT, mask_BT, everywhere), reward_BT)
    if estimator == "rloo":
        advantage_B = leave_one_out(reward_B, group)
    elif estimator == "reinforce":
        everywhere = of_all_ranks(moments(reward_B, torch.ones_like(reward_B)), dist)
        advantage_B = reward_B - everywhere.mean.to(reward_B.dtype)
    else:
        advantage_B = group_relative(reward_B, group, scaled=estimator == "grpo")
    return Advantages(on_every_token(advantage_B, mask_BT), reward_BT)


@dataclass(frozen=True)
class PolicyBatch(OverSequences):
    """A micro-batch. Weight: response tokens, so that metrics are means over tokens whatever the loss is."""

    logprob_BT: Tensor  # of the policy that sampled
    reference_logprob_BT: Tensor
    advantage_BT: Tensor
    share_BT: Tensor  # how much a token's loss counts beside its mean over tokens, see `token_shares`


def token_shares(
    mask_BT: Tensor, normalisation: Normalisation, *, tokens: float, rows: int, max_new_tokens: int
) -> Tensor:
    """Factors that make a mean over the tokens of a minibatch the mean that `normalisation` asks for.

    `token`: over all response tokens, so that long responses count for more (Yu et al. 2025, DAPO).
    `sequence`: over each response, then over responses (Shao et al. 2024, eq. 3). `constant`: the sum divided
    by `rows * max_new_tokens`, which does not depend on what was sampled (Liu et al. 2025).

    Args:
        tokens, rows: of the whole minibatch, on all ranks.
    """
    if normalisation == "token":
        return mask_BT.float()
    if normalisation == "constant":
        return mask_BT.float() * (tokens / (rows * max_new_tokens))
    length_B1 = mask_BT.sum(1, keepdim=True).clamp(min=1)
    return mask_BT.float() / length_B1 * (tokens / rows)


def cut(
    sequences: Sequence[SequenceBatch],
    indices: Sequence[Sequence[int]],
    rollouts: Rollouts,
    advantage_BT: Tensor,
    shares: Callable[[Tensor], Tensor],
) -> list[PolicyBatch]:
    """One minibatch on the same rows as `sequences`. `shares` makes a mask the factors of its tokens."""
    batches = []
    for sequence, rows in zip(sequences, indices, strict=True):
        time = sequence.mask_BT.size(1)
        pick = torch.tensor(rows)
        batches.append(
            PolicyBatch(
                weight=sequence.weight,
                sequences=sequence,
                logprob_BT=rollouts.logprob_BT[pick, :time],
                reference_logprob_BT=rollouts.reference_logprob_BT[pick, :time],
                advantage_BT=advantage_BT[pick, :time],
                share_BT=shares(sequence.mask_BT),
            )
        )
    return batches


@dataclass(frozen=True)
class Loss:
    """Sums over response tokens. `policy.loss` and `kl` carry gradients."""

    policy: PolicyTerms
    kl: Tensor


def policy_loss(
    logprob_BT: Tensor,
    batch: PolicyBatch,
    *,
    clip: float,
    clip_high: float | None,
    kl_weight: float,
    kl: KLEstimator,
) -> Loss:
    """The clipped surrogate, and `kl_weight` times the differentiated KL estimate; 0 where it is in the
    reward."""
    mask_BT = batch.sequences.mask_BT
    policy = clipped_surrogate(
        logprob_BT,
        batch.logprob_BT,
        batch.advantage_BT * batch.share_BT,  # a positive factor changes no clip
        mask_BT,
        clip=clip,
        clip_high=clip_high,
    )
    if not kl_weight:
        return Loss(policy, torch.zeros_like(policy.loss))
    kl_BT = estimate(kl, logprob_BT, batch.reference_logprob_BT)
    return Loss(policy, kl_weight * masked_sum(kl_BT * batch.share_BT, mask_BT))
