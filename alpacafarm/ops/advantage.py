"""From a score per response to an advantage per token."""

# Shapes: B rows, T response positions, G groups, N responses of a group: rows N*g to N*g + N - 1 are those of
# group g, answers to one prompt.

from __future__ import annotations

import torch
from torch import Tensor

from alpacafarm.ops.masked import last_token, zero_padding

RESOLUTION = 1e-5  # rewards of a group that differ by less, relative to their size, are equal up to rounding


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


def leave_one_out(reward_B: Tensor, group: int) -> Tensor:
    """Each reward minus the mean of the others of its group (Ahmadian et al. 2024; arXiv:2402.14740)."""
    reward_GN = reward_B.view(-1, group)
    others_GN = (reward_GN.sum(1, keepdim=True) - reward_GN) / (group - 1)
    return (reward_GN - others_GN).flatten()


def group_relative(reward_B: Tensor, group: int, *, scaled: bool) -> Tensor:
    """Each reward minus the mean of its group, itself included.

    `scaled`: divided by the group's sample standard deviation (Shao et al. 2024, section 4.1.2;
    arXiv:2402.03300), and zero where the group has none. Without it, as Dr. GRPO (Liu et al. 2025;
    arXiv:2503.20783): a group then weighs by how much its rewards differ.
    """
    reward_GN = reward_B.view(-1, group)
    mean_G1 = reward_GN.mean(1, keepdim=True)
    centred_GN = reward_GN - mean_G1
    if scaled:
        std_G1 = reward_GN.std(1, keepdim=True)
        is_flat_G1 = std_G1 <= RESOLUTION * (1 + mean_G1.abs())
        centred_GN = (centred_GN / std_G1).masked_fill(is_flat_G1, 0.0)
    return centred_GN.flatten()


def reward_to_go(reward_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The sum of a row's rewards from each token to its end, undiscounted; zero on padding."""
    to_go_BT = zero_padding(reward_BT, mask_BT).flip(1).cumsum(1).flip(1)
    return zero_padding(to_go_BT, mask_BT)


def on_every_token(advantage_B: Tensor, mask_BT: Tensor) -> Tensor:
    """The advantage of a response as that of each of its tokens."""
    return zero_padding(advantage_B.unsqueeze(1).expand(mask_BT.shape), mask_BT)
