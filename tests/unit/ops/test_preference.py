import math

import pytest
import torch

from alpacafarm.ops.preference import bradley_terry_loss, dpo_terms


@pytest.fixture
def scores():
    torch.manual_seed(0)
    return torch.randn(2, 6, dtype=torch.float64).requires_grad_()


PROBABILITY_2 = torch.tensor([0.0, 1.0, 0.5, 0.0, 1.0, 0.3], dtype=torch.float64)


def test_loss_of_a_preferred_output_is_minus_log_sigmoid_of_its_lead(scores):
    first, second = scores
    lead = torch.where(PROBABILITY_2 == 1, second - first, first - second)
    found = bradley_terry_loss(first, second, PROBABILITY_2)
    is_plain = (PROBABILITY_2 == 0) | (PROBABILITY_2 == 1)
    torch.testing.assert_close(found[is_plain], -torch.log(1 / (1 + torch.exp(-lead)))[is_plain])


def test_gradient_is_the_predicted_minus_the_true_probability(scores):
    first, second = scores
    bradley_terry_loss(first, second, PROBABILITY_2).sum().backward()
    surplus = torch.sigmoid(second - first).detach() - PROBABILITY_2
    torch.testing.assert_close(scores.grad, torch.stack([-surplus, surplus]))


def test_equal_scores_cost_log_two_whatever_the_label():
    score = torch.tensor([-4.0, 0.0, 9.0])
    found = bradley_terry_loss(score, score, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(found, torch.full((3,), math.log(2)))


def test_a_tie_is_least_at_equal_scores_and_symmetric():
    lead = torch.linspace(-3, 3, 13)
    tie = torch.full((13,), 0.5)
    loss = bradley_terry_loss(torch.zeros(13), lead, tie)
    assert loss.argmin() == 6
    torch.testing.assert_close(loss, loss.flip(0))


def test_a_soft_label_is_least_at_its_own_log_odds():
    probability = torch.tensor([0.1, 0.3, 0.9])
    lead = (probability / (1 - probability)).log().requires_grad_()
    bradley_terry_loss(torch.zeros(3), lead, probability).sum().backward()
    torch.testing.assert_close(lead.grad, torch.zeros(3))


def test_swapping_outputs_and_label_changes_nothing(scores):
    first, second = scores
    torch.testing.assert_close(
        bradley_terry_loss(second, first, 1 - PROBABILITY_2), bradley_terry_loss(first, second, PROBABILITY_2)
    )


def test_only_the_difference_of_scores_matters(scores):
    first, second = scores
    torch.testing.assert_close(
        bradley_terry_loss(first + 5, second + 5, PROBABILITY_2),
        bradley_terry_loss(first, second, PROBABILITY_2),
    )


def test_a_hopeless_pair_costs_its_lead_and_stays_finite():
    found = bradley_terry_loss(torch.tensor([1000.0]), torch.tensor([-1000.0]), torch.tensor([1.0]))
    torch.testing.assert_close(found, torch.tensor([2000.0]))


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_is_log_two_when_policy_equals_reference(beta):
    margin = torch.tensor([-3.0, 0.0, 7.0])
    torch.testing.assert_close(dpo_terms(margin, margin, beta=beta).loss_B, torch.full((3,), math.log(2)))


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_gradient_is_beta_times_the_probability_of_being_wrong(beta):
    policy = torch.tensor([-3.0, 0.5, 7.0], requires_grad=True)
    reference = torch.tensor([1.0, 0.0, 2.0])
    dpo_terms(policy, reference, beta=beta).loss_B.sum().backward()
    torch.testing.assert_close(policy.grad, -beta * torch.sigmoid(-beta * (policy.detach() - reference)))


def test_dpo_is_bradley_terry_on_the_implied_rewards():
    policy, reference = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    terms = dpo_terms(policy, reference, beta=0.3)
    torch.testing.assert_close(terms.margin_B, 0.3 * policy - 0.3 * reference)
    torch.testing.assert_close(
        terms.loss_B, bradley_terry_loss(torch.zeros(8), terms.margin_B, torch.ones(8))
    )


def test_dpo_margin_is_for_logging_only():
    assert not dpo_terms(torch.zeros(1, requires_grad=True), torch.zeros(1), beta=0.1).margin_B.requires_grad


def test_dpo_of_a_hopeless_pair_costs_its_margin_and_stays_finite():
    found = dpo_terms(torch.tensor([-1000.0]), torch.tensor([0.0]), beta=1.0)
    torch.testing.assert_close(found.loss_B, torch.tensor([1000.0]))
