"""Losses of preferences, one value per pair or response.

A pair loss takes the two sides of each pair as chosen and rejected. Which side is which is a probability:
`labelled` weighs both readings, so that ties, soft labels and corrections for flipped labels go with every
loss.
"""

# Shapes: B pairs, or responses.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Correction = Literal["none", "smooth", "robust"]


def bradley_terry_loss(score_1_B: Tensor, score_2_B: Tensor, probability_2_B: Tensor) -> Tensor:
    """Cross-entropy in nats of p(2 preferred) = sigmoid(score_2 - score_1) (Ouyang et al. 2022, eq. 1).

    Args:
        probability_2_B: probability that output 2 is preferred: `preference - 1`, so 0 or 1, 0.5 for a tie,
            and between for soft labels. In the dtype of the scores.
    """
    return F.binary_cross_entropy_with_logits(score_2_B - score_1_B, probability_2_B, reduction="none")


@dataclass(frozen=True)
class Side:
    """One response of each pair. Log-probabilities are in nats, summed over response tokens."""

    logprob_B: Tensor  # under the policy
    reference_B: Tensor | None  # under the reference; None where a loss has none
    tokens_B: Tensor  # response tokens

    @property
    def logratio(self) -> Tensor:
        assert self.reference_B is not None, "this loss needs the reference's log-probabilities"
        return self.logprob_B - self.reference_B

    @property
    def mean_logprob(self) -> Tensor:
        """Per response token; 0 for an empty response."""
        return self.logprob_B / self.tokens_B.clamp(min=1)

    def per_token(self) -> Side:
        """Sums divided by the response's length, so that any loss becomes length-normalised.

        Each response then counts as one token: doing it twice changes nothing.
        """
        reference_B = None if self.reference_B is None else self.reference_B / self.tokens_B.clamp(min=1)
        return Side(self.mean_logprob, reference_B, torch.ones_like(self.tokens_B))


PairLoss = Callable[[Side, Side], Tensor]  # of chosen and rejected


def label_weights(
    probability_2_B: Tensor, correction: Correction, flip_probability: float
) -> tuple[Tensor, Tensor]:
    """The weights of "2 is chosen" and "1 is chosen", for `labelled`. They add up to one.

    - `none`: the label as it is.
    - `smooth`: conservative DPO (Mitchell 2023, https://ericmitchell.ai/cdpo.pdf). The label is mixed with
      its opposite: the least loss is at the odds that flips at this rate leave, so no pair is pushed further.
    - `robust`: (Chowdhury et al. 2024, section 3.1; arXiv:2403.00409). One weight is negative. The mean over
      flips is the loss of the true label, whatever the loss.

    Args:
        probability_2_B: as for `bradley_terry_loss`.
        flip_probability: eps, the share of labels that say the opposite; below 0.5 for `robust`.
    """
    p_B, eps = probability_2_B, flip_probability
    if correction == "smooth":
        weight_2_B = (1 - eps) * p_B + eps * (1 - p_B)
    elif correction == "robust":
        assert eps < 0.5, "flipped labels of half of the pairs say nothing"
        weight_2_B = (p_B - eps) / (1 - 2 * eps)
    else:
        weight_2_B = p_B
    return weight_2_B, 1 - weight_2_B


def labelled(loss: PairLoss, side_1: Side, side_2: Side, weight_2_B: Tensor, weight_1_B: Tensor) -> Tensor:
    """The loss of pairs whose label is uncertain: both readings of it, by their weights."""
    return weight_2_B * loss(side_2, side_1) + weight_1_B * loss(side_1, side_2)


def dpo(chosen: Side, rejected: Side, *, beta: float) -> Tensor:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7; arXiv:2305.18290)."""
    return -F.logsigmoid(beta * (chosen.logratio - rejected.logratio))


def ipo(chosen: Side, rejected: Side, *, beta: float) -> Tensor:
    """Identity preference optimisation (Azar et al. 2023, eq. 17; arXiv:2310.12036): the squared distance of
    the lead from 1 / (2 beta) nats. The paper's tau is `beta`."""
    return (chosen.logratio - rejected.logratio - 1 / (2 * beta)).square()


def hinge(chosen: Side, rejected: Side, *, beta: float) -> Tensor:
    """The hinge of SLiC-HF (Zhao et al. 2023, section 2; arXiv:2305.10425) on log-ratios, as RSO takes it
    (Liu et al. 2023, `hinge-norm`; arXiv:2309.06657). No gradient once the lead is 1 / beta nats."""
    return F.relu(1 - beta * (chosen.logratio - rejected.logratio))


def simpo(chosen: Side, rejected: Side, *, beta: float, target_margin: float) -> Tensor:
    """Simple preference optimisation (Meng et al. 2024, eq. 6; arXiv:2405.14734), without a reference.

    `target_margin` is the paper's gamma, in the units of `beta` times a log-probability per token.
    """
    lead_B = beta * (chosen.mean_logprob - rejected.mean_logprob)
    return -F.logsigmoid(lead_B - target_margin)


def orpo(chosen: Side, rejected: Side, *, beta: float) -> Tensor:
    """The odds-ratio term of ORPO (Hong et al. 2024, eq. 7; arXiv:2403.07691), without a reference.

    `beta` is its weight, the paper's lambda, beside the likelihood of the chosen response (`likelihood`),
    without which nothing keeps the policy a language model.
    """
    return -beta * F.logsigmoid(log_odds(chosen.mean_logprob) - log_odds(rejected.mean_logprob))


def log_odds(logprob: Tensor) -> Tensor:
    """log p / (1 - p). A probability within rounding of one counts as that far from it, for finite odds."""
    logprob = logprob.clamp(max=-torch.finfo(logprob.dtype).eps)
    return logprob - torch.log(-torch.expm1(logprob))


def likelihood(chosen: Side, rejected: Side) -> Tensor:
    """The negative log-likelihood per token of the chosen response, to add to another loss (Pang et al. 2024,
    arXiv:2404.19733)."""
    return -chosen.mean_logprob


def kto(
    logratio_B: Tensor,
    is_desirable_B: Tensor,
    reference_point: Tensor,
    *,
    beta: float,
    desirable_weight: float,
    undesirable_weight: float,
) -> Tensor:
    """Kahneman-Tversky optimisation (Ethayarajh et al. 2024, section 4.1; arXiv:2402.01306) of single
    responses: each weight times 1 - sigmoid, of how far a desirable one is above the reference point or an
    undesirable one below it.

    Args:
        logratio_B: log policy - log reference of the response, in nats.
        reference_point: z0 = max(0, mean log-ratio of mismatched prompts and responses), a constant.
    """
    gain_B = beta * (logratio_B - reference_point.detach())
    return torch.where(
        is_desirable_B.bool(),
        desirable_weight * torch.sigmoid(-gain_B),
        undesirable_weight * torch.sigmoid(gain_B),
    )
