"""Expectations are exact: sums over a vocabulary of 16 tokens instead of samples."""

import math
from typing import get_args

import pytest
import torch

from alpacafarm.ops.kl import Estimator, adapted, clamped, estimate, exact_kl, k1, k2, k3

ESTIMATORS = get_args(Estimator)


def policy_and_reference(distance=1.0):
    torch.manual_seed(0)
    policy_V, step_V = torch.randn(2, 16, dtype=torch.float64)
    return policy_V.requires_grad_(), policy_V.detach() + distance * step_V


def expectation(estimator, logits_V, reference_V):
    logprob_V = logits_V.log_softmax(-1)
    return (logprob_V.exp() * estimator(logprob_V, reference_V.log_softmax(-1))).sum()


def gradient(value, logits_V):
    return torch.autograd.grad(value, logits_V)[0]


def test_exact_kl_is_torch_distributions_own():
    logits, reference_logits = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=logits),
        torch.distributions.Categorical(logits=reference_logits),
    )
    torch.testing.assert_close(exact_kl(logits, reference_logits), expected)


def test_exact_kl_between_two_tokens_has_its_closed_form():
    logits, reference_logits = torch.tensor([0.9, 0.1]).log(), torch.tensor([0.5, 0.5]).log()
    expected = torch.tensor(0.9 * math.log(1.8) + 0.1 * math.log(0.2))
    torch.testing.assert_close(exact_kl(logits, reference_logits), expected)


def test_tokens_that_cannot_occur_count_nothing():
    logits, reference_logits = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0)).double()
    expected = exact_kl(logits[:, :12], reference_logits[:, :12])
    never = torch.arange(16) >= 12
    policy = logits.masked_fill(never, -torch.inf).requires_grad_()
    reference = reference_logits.masked_fill(never, -torch.inf)
    found = exact_kl(policy, reference)
    torch.testing.assert_close(found, expected)
    slope = gradient(found.sum(), policy)
    assert torch.isfinite(slope).all()
    assert not slope[:, 12:].any()


def test_exact_kl_of_bfloat16_logits_is_computed_in_float32():
    logits, reference_logits = torch.randn(2, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    expected = exact_kl(logits.double(), reference_logits.double()).float()
    torch.testing.assert_close(exact_kl(logits, reference_logits), expected)


@pytest.mark.parametrize("distance", [0.1, 1.0, 3.0])
@pytest.mark.parametrize("estimator", [k1, k3])
def test_k1_and_k3_are_unbiased(estimator, distance):
    policy_V, reference_V = policy_and_reference(distance)
    torch.testing.assert_close(expectation(estimator, policy_V, reference_V), exact_kl(policy_V, reference_V))


def test_bias_of_k2_is_of_third_order():
    def bias(distance):
        policy_V, reference_V = policy_and_reference(distance)
        return (expectation(k2, policy_V, reference_V) - exact_kl(policy_V, reference_V)).item()

    assert bias(0.02) != 0
    # halving the distance divides the bias by 2 ** 3, but for terms of fourth order
    assert bias(0.02) / bias(0.01) == pytest.approx(8, rel=0.02)


@pytest.mark.parametrize("distance", [0.1, 1.0, 3.0])
def test_clamped_exceeds_the_kl_by_the_negative_part_it_drops(distance):
    policy_V, reference_V = policy_and_reference(distance)
    dropped = expectation(lambda p, q: (q - p).clamp(min=0), policy_V, reference_V)
    bias = expectation(clamped, policy_V, reference_V) - exact_kl(policy_V, reference_V)
    torch.testing.assert_close(bias, dropped)
    assert bias > 0


def test_clamped_reads_eight_times_a_small_kl():
    # log-ratios from N(s^2/2, s^2), whose mean is the KL, on a grid of normal quantiles
    s = 0.1
    z = torch.special.ndtri((torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000)
    log_ratio = s * z + s**2 / 2
    assert (clamped(log_ratio, torch.tensor(0.0)).mean() / (s**2 / 2)).item() == pytest.approx(8.49, abs=0.01)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_every_estimate_of_equal_models_is_zero(name):
    logprob = torch.tensor([-0.1, -5.0, -30.0])
    torch.testing.assert_close(estimate(name, logprob, logprob), torch.zeros(3))


@pytest.mark.parametrize("name", ["k2", "k3", "clamped"])
def test_estimates_but_k1_are_never_negative(name):
    logprob = torch.linspace(-8, 0, 33)
    assert (estimate(name, logprob.unsqueeze(0), logprob.unsqueeze(1)) >= 0).all()


def test_names_lead_to_their_estimators():
    logprob, reference = torch.tensor(math.log(0.5)), torch.tensor(math.log(0.25))
    found = {name: estimate(name, logprob, reference).item() for name in ESTIMATORS}
    log2 = math.log(2)
    expected = {"k1": log2, "k2": log2**2 / 2, "k3": 0.5 - 1 + log2, "clamped": log2}
    assert found == pytest.approx(expected)
    assert estimate("clamped", reference, logprob).item() == 0
    assert estimate("k1", reference, logprob).item() == pytest.approx(-log2)


def test_k1_in_the_reward_has_the_gradient_of_the_kl():
    policy_V, reference_V = policy_and_reference()
    penalty_V = k1(policy_V.log_softmax(-1), reference_V.log_softmax(-1)).detach()
    reinforce = (policy_V.softmax(-1).detach() * penalty_V * policy_V.log_softmax(-1)).sum()
    torch.testing.assert_close(
        gradient(reinforce, policy_V), gradient(exact_kl(policy_V, reference_V), policy_V)
    )


def gradient_as_loss(estimator, reference_V, policy_V):
    """Expected gradient of the estimate on sampled tokens; the sampling itself is not differentiated."""
    estimate_V = estimator(policy_V.log_softmax(-1), reference_V.log_softmax(-1))
    return gradient((policy_V.softmax(-1).detach() * estimate_V).sum(), policy_V)


def test_k2_as_a_loss_has_the_gradient_of_the_kl():
    policy_V, reference_V = policy_and_reference()
    found_V = gradient_as_loss(k2, reference_V, policy_V)
    torch.testing.assert_close(found_V, gradient(exact_kl(policy_V, reference_V), policy_V))


def test_k1_as_a_loss_pulls_nowhere_whatever_the_reference():
    policy_V, near_V = policy_and_reference(0.1)
    _, far_V = policy_and_reference(5.0)
    for reference_V in near_V, far_V:
        found_V = gradient_as_loss(k1, reference_V, policy_V)
        torch.testing.assert_close(found_V, torch.zeros_like(found_V))


@pytest.mark.parametrize(
    ("observed", "factor"), [(6.0, 1.0), (6.6, 1.01), (5.4, 0.99), (60.0, 1.02), (0.0, 0.98), (-5.0, 0.98)]
)
def test_coefficient_follows_the_relative_error_within_a_fifth(observed, factor):
    assert adapted(0.2, observed, target=6.0) == pytest.approx(0.2 * factor)


def test_gain_and_limit_of_the_controller_are_parameters():
    assert adapted(1.0, 12.0, target=6.0, k_beta=0.5, limit=2.0) == pytest.approx(1.5)
