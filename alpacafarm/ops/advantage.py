"""From a score per response to an advantage per token."""

# Shapes: B rows, T response positions.

from __future__ import annotations

import torch
from torch import Tensor

from alpacafarm.ops.masked import last_token, zero_padding


def shaped_rewards(score_B: Tensor, kl_BT: Tensor, mask_BT: Tensor, *, kl_coef: float) -> Tensor:
    """Reward per token: the KL penalty on each response token, and the score on the last.

    (Ziegler et al. 2019, eq. 2, per token.) The last token is where the mask ends, so an end of sequence
    that counts as response earns the score. A row without response tokens earns nothing.
    """
    penalty_BT = zero_padding(-kl_coef * kl_BT, mask_BT)
    return penalty_BT + zero_padding(score_B.unsqueeze(1).expand_as(kl_BT), last_token(mask_BT))


def gae(reward_BT: Tensor, value_BT: Tensor, mask_BT: Tensor, *, gamma: float, lam: float) -> Tensor:
    """Generalised advantage estimates (Schulman et al. 2016, eq. 16; arXiv:1506.02438).

    Args:
        reward_BT: per-token reward, already shaped with the KL penalty.
        value_BT: V(s_t), the value *before* token t is emitted.
        mask_BT: true on response tokens. Padding neither earns nor carries advantage.

    Returns:
        advantage_BT, zero on padding. Returns for the value loss are `advantage_BT + value_BT`.
    """
    advantage_BT = torch.zeros_like(reward_BT)
    carry_B = torch.zeros_like(reward_BT[:, 0])
    next_value_B = torch.zeros_like(carry_B)
    for t in reversed(range(reward_BT.size(1))):
        delta_B = reward_BT[:, t] + gamma * next_value_B - value_BT[:, t]
        carry_B = (delta_B + gamma * lam * carry_B) * mask_BT[:, t]
        next_value_B = value_BT[:, t] * mask_BT[:, t]
        advantage_BT[:, t] = carry_B
    return advantage_BT
