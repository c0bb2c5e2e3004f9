"""The two losses of PPO, as sums over response tokens (Schulman et al. 2017; arXiv:1707.06347)."""

# Shapes: B rows, T response positions.

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alpacafarm.ops.kl import k2
from alpacafarm.ops.masked import masked_sum, zero_padding

LOG_RATIO_LIMIT = 20.0  # exp(20) is 5e8: far outside any clip, and finite in bfloat16 and float32


@dataclass(frozen=True)
class PolicyTerms:
    """Sums over response tokens; divide by their global number. Only the loss carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor  # number of tokens where the clipped term decides
    approx_kl: Tensor  # between old and new policy, nats
    ratio_BT: Tensor  # p_new / p_old; one on padding


@dataclass(frozen=True)
class ValueTerms:
    """Sums over response tokens; divide by their global number. Only the loss carries a gradient."""

    loss: Tensor
    clip_fraction: Tensor  # number of tokens where the clipped error decides


def clipped_surrogate(
    logprob_BT: Tensor,
    old_logprob_BT: Tensor,
    advantage_BT: Tensor,
    mask_BT: Tensor,
    *,
    clip: float,
    clip_high: float | None = None,
) -> PolicyTerms:
    """The clipped policy objective, negated (Schulman et al. 2017, eq. 7).

    Ratios are clipped to 1 - clip and 1 + clip_high (Yu et al. 2025, "clip-higher"; arXiv:2503.14476), which
    is `clip` where none is given. Log-ratios are held within 20 nats, beyond which a token gives no gradient:
    one broken token should not make the loss infinite.
    """
    log_ratio_BT = zero_padding(logprob_BT - old_logprob_BT, mask_BT).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio_BT = log_ratio_BT.exp()
    plain_BT = -advantage_BT * ratio_BT
    clipped_BT = -advantage_BT * ratio_BT.clamp(1 - clip, 1 + (clip if clip_high is None else clip_high))
    return PolicyTerms(
        loss=masked_sum(torch.maximum(plain_BT, clipped_BT), mask_BT),
        clip_fraction=masked_sum((clipped_BT > plain_BT).float(), mask_BT),
        approx_kl=masked_sum(k2(logprob_BT, old_logprob_BT), mask_BT).detach(),
        ratio_BT=ratio_BT.detach(),
    )


def clipped_value_loss(
    value_BT: Tensor, old_value_BT: Tensor, return_BT: Tensor, mask_BT: Tensor, *, clip: float
) -> ValueTerms:
    """Half the squared error: the larger of the value's own and that of the value held near the old one.

    As in `PPOTrainer.compute_loss` of tatsu-lab/alpaca_farm; the paper has no clipping here.
    """
    bounded_BT = torch.clamp(value_BT, old_value_BT - clip, old_value_BT + clip)
    plain_BT = (value_BT - return_BT).square()
    clipped_BT = (bounded_BT - return_BT).square()
    return ValueTerms(
        loss=0.5 * masked_sum(torch.maximum(plain_BT, clipped_BT), mask_BT),
        clip_fraction=masked_sum((clipped_BT > plain_BT).float(), mask_BT),
    )
