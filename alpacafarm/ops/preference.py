"""Losses on pairs of responses, one value per pair."""

# Shapes: B pairs.

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


def bradley_terry_loss(score_1_B: Tensor, score_2_B: Tensor, probability_2_B: Tensor) -> Tensor:
    """Cross-entropy in nats of p(2 preferred) = sigmoid(score_2 - score_1) (Ouyang et al. 2022, eq. 1).

    Args:
        probability_2_B: probability that output 2 is preferred: `preference - 1`, so 0 or 1, 0.5 for a tie,
            and between for soft labels. In the dtype of the scores.
    """
    return F.binary_cross_entropy_with_logits(score_2_B - score_1_B, probability_2_B, reduction="none")


@dataclass(frozen=True)
class DPOTerms:
    loss_B: Tensor
    margin_B: Tensor  # implied reward margin, in nats


def dpo_terms(policy_margin_B: Tensor, reference_margin_B: Tensor, *, beta: float) -> DPOTerms:
    """Per-pair DPO loss (Rafailov et al. 2023, eq. 7; arXiv:2305.18290).

    Each margin is log p(chosen) - log p(rejected), summed over response tokens.
    """
    margin_B = beta * (policy_margin_B - reference_margin_B)
    return DPOTerms(loss_B=-F.logsigmoid(margin_B), margin_B=margin_B.detach())
