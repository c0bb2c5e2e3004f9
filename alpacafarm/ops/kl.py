"""The divergence of the policy from the reference: estimates per token, and the coefficient of the penalty.

Estimates of KL(policy || reference) from the log-probabilities of tokens *sampled from the policy*
(Schulman 2020, "Approximating KL divergence", http://joschu.net/blog/kl-approx.html). Where each may stand
(Liu et al. 2025, arXiv:2510.01555):

- In the reward, as a constant: `k1`. Its policy gradient is the gradient of the KL. alpaca_farm: `clamped`.
- In the loss, differentiated: `k2`. On samples of the current policy its gradient is the gradient of the KL.
  GRPO has `k3` there, whose gradient is that of the reverse KL, KL(reference || policy).
  Never `k1`: the expectation of its gradient is zero, whatever the reference.
- In the logs: `k1` or `k3`. Both are unbiased; `k3` is never negative, and varies less if the two are close.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Estimator = Literal["k1", "k2", "k3", "clamped"]


def k1(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """log p - log q: unbiased, negative for some tokens."""
    return logprob - reference_logprob


def k2(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """Half the squared log-ratio: exact to second order where policy and reference are close."""
    return 0.5 * (logprob - reference_logprob).square()


def k3(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """q/p - 1 - log q/p: unbiased, never negative."""
    log_ratio = logprob - reference_logprob
    return torch.expm1(-log_ratio) + log_ratio


def clamped(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """max(0, log p - log q), as alpaca_farm's PPO has it: too large, for it drops the negative terms.

    Published coefficients belong to it. Where log-ratios spread by 0.1 nats it reads 8 times the KL, so the
    same number in front of another estimate is a much weaker penalty.
    """
    return (logprob - reference_logprob).clamp(min=0)


_ESTIMATORS: dict[Estimator, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": k1,
    "k2": k2,
    "k3": k3,
    "clamped": clamped,
}


def estimate(name: Estimator, logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    return _ESTIMATORS[name](logprob, reference_logprob)


def exact_kl(logits: Tensor, reference_logits: Tensor) -> Tensor:
    """KL(policy || reference) summed over the vocabulary, the last axis; float32 at least.

    Logits are already divided by the temperature. Those of -inf are tokens that cannot occur.
    """
    dtype = torch.promote_types(logits.dtype, torch.float32)
    logprob = F.log_softmax(logits.to(dtype), dim=-1)
    return divergence(logprob, F.log_softmax(reference_logits.to(dtype), dim=-1))


def divergence(logprob: Tensor, reference_logprob: Tensor) -> Tensor:
    """`exact_kl` of log-probabilities of the whole vocabulary."""
    log_ratio = logprob - reference_logprob
    log_ratio = log_ratio.masked_fill(logprob == -torch.inf, 0)  # 0 * log 0 is 0, whatever the reference says
    return (logprob.exp() * log_ratio).sum(-1)


def adapted(
    coef: float, observed_kl: float, *, target: float, k_beta: float = 0.1, limit: float = 0.2
) -> float:
    """The next coefficient from the KL seen under this one (Ziegler et al. 2019, sec. 2.2; arXiv:1909.08593).

    Args:
        observed_kl: nats per response, the mean over the rollouts of all ranks.
        target: the same quantity as it should be; alpaca_farm's is 6.
        k_beta: gain of the controller, as in the paper.
        limit: bound of the relative error in either direction, as in the paper.
    """
    error = min(max(observed_kl / target - 1, -limit), limit)
    return coef * (1 + k_beta * error)
