"""Preference losses against plain Python in double precision, at their limits, and under flipped labels."""

import math
from functools import partial

import pytest
import torch

from alpacafarm.ops import preference
from alpacafarm.ops.preference import Side, bradley_terry_loss, label_weights, labelled


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


# The two sides of pairs: sums of log-probabilities under policy and reference, and lengths.
CHOSEN = ((-10.0, -12.0, 5), (-0.4, -0.3, 1), (-30.0, -25.5, 17), (-7.0, -7.0, 4))
REJECTED = ((-14.0, -13.0, 9), (-2.0, -4.0, 2), (-20.0, -31.0, 11), (-7.0, -7.0, 4))


def side(rows, *, with_reference=True) -> Side:
    policy, reference, tokens = (list(column) for column in zip(*rows, strict=True))
    return Side(
        torch.tensor(policy, dtype=torch.float64).requires_grad_(),
        torch.tensor(reference, dtype=torch.float64) if with_reference else None,
        torch.tensor(tokens),
    )


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def odds(row) -> float:
    probability = math.exp(row[0] / row[2])
    return probability / (1 - probability)


LOSSES = {
    "dpo": partial(preference.dpo, beta=0.3),
    "ipo": partial(preference.ipo, beta=0.3),
    "hinge": partial(preference.hinge, beta=0.3),
    "simpo": partial(preference.simpo, beta=2.0, target_margin=0.7),
    "orpo": partial(preference.orpo, beta=0.2),
    "likelihood": preference.likelihood,
}
BY_HAND = {  # of one pair: (policy, reference, tokens) of chosen and rejected
    "dpo": lambda w, r: -math.log(sigmoid(0.3 * ((w[0] - w[1]) - (r[0] - r[1])))),
    "ipo": lambda w, r: ((w[0] - w[1]) - (r[0] - r[1]) - 1 / (2 * 0.3)) ** 2,
    "hinge": lambda w, r: max(0.0, 1 - 0.3 * ((w[0] - w[1]) - (r[0] - r[1]))),
    "simpo": lambda w, r: -math.log(sigmoid(2.0 / w[2] * w[0] - 2.0 / r[2] * r[0] - 0.7)),
    "orpo": lambda w, r: -0.2 * math.log(sigmoid(math.log(odds(w) / odds(r)))),
    "likelihood": lambda w, r: -w[0] / w[2],
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_their_formulas(name):
    found = LOSSES[name](side(CHOSEN), side(REJECTED)).tolist()
    expected = [BY_HAND[name](w, r) for w, r in zip(CHOSEN, REJECTED, strict=True)]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("name", ["simpo", "orpo", "likelihood"])
def test_losses_without_a_reference_ask_for_none(name):
    found = LOSSES[name](side(CHOSEN, with_reference=False), side(REJECTED, with_reference=False))
    torch.testing.assert_close(found, LOSSES[name](side(CHOSEN), side(REJECTED)))


@pytest.mark.parametrize("name", ["dpo", "ipo", "hinge"])
def test_equal_policies_cost_what_no_lead_costs(name):
    still = [(row[1], row[1], row[2]) for row in CHOSEN]
    cost = {"dpo": math.log(2), "ipo": (1 / 0.6) ** 2, "hinge": 1.0}[name]
    found = LOSSES[name](side(still), side(still[::-1]))
    torch.testing.assert_close(found, torch.full((4,), cost, dtype=torch.float64))


@pytest.mark.parametrize("name", ["dpo", "simpo"])
def test_beta_to_zero_costs_log_two(name):
    loss = partial(
        getattr(preference, name), beta=1e-12, **({"target_margin": 0.0} if name == "simpo" else {})
    )
    found = loss(side(CHOSEN), side(REJECTED))
    torch.testing.assert_close(found, torch.full((4,), math.log(2), dtype=torch.float64))


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_gradient_is_beta_times_the_probability_of_being_wrong(beta):
    chosen, rejected = side(CHOSEN), side(REJECTED)
    preference.dpo(chosen, rejected, beta=beta).sum().backward()
    lead = (chosen.logratio - rejected.logratio).detach()
    torch.testing.assert_close(chosen.logprob_B.grad, -beta * torch.sigmoid(-beta * lead))
    torch.testing.assert_close(rejected.logprob_B.grad, -chosen.logprob_B.grad)


def test_dpo_is_bradley_terry_on_the_implied_rewards():
    chosen, rejected = side(CHOSEN), side(REJECTED)
    expected = bradley_terry_loss(
        0.3 * rejected.logratio, 0.3 * chosen.logratio, torch.ones(4, dtype=torch.float64)
    )
    torch.testing.assert_close(LOSSES["dpo"](chosen, rejected), expected)


def test_dpo_of_a_hopeless_pair_costs_its_margin_and_stays_finite():
    chosen, rejected = side([(-1000.0, 0.0, 3)]), side([(0.0, 0.0, 3)])
    found = preference.dpo(chosen, rejected, beta=1.0)
    torch.testing.assert_close(found, torch.tensor([1000.0], dtype=torch.float64))


def test_ipo_and_hinge_have_no_gradient_at_their_margins():
    target = 1 / (2 * 0.3)
    at_target = side([(target, 0.0, 1)])
    preference.ipo(at_target, side([(0.0, 0.0, 1)]), beta=0.3).sum().backward()
    torch.testing.assert_close(at_target.logprob_B.grad, torch.zeros(1, dtype=torch.float64))
    beyond = side([(1 / 0.3 + 0.1, 0.0, 1)])
    preference.hinge(beyond, side([(0.0, 0.0, 1)]), beta=0.3).sum().backward()
    assert beyond.logprob_B.grad.item() == 0.0


def test_simpo_does_not_care_for_length_at_equal_likelihood_per_token():
    short, long = side([(-4.0, 0.0, 2)]), side([(-40.0, 0.0, 20)])
    found = preference.simpo(short, long, beta=2.0, target_margin=0.0)
    torch.testing.assert_close(found, torch.tensor([math.log(2)], dtype=torch.float64))


def test_log_odds_of_a_certain_response_are_finite_and_so_is_the_gradient():
    logprob = torch.tensor([0.0, -1e-9, -0.5, -200.0]).requires_grad_()
    found = preference.log_odds(logprob)
    found.sum().backward()
    assert found.isfinite().all()
    assert logprob.grad.isfinite().all()
    assert found[2].item() == pytest.approx(math.log(math.exp(-0.5) / (1 - math.exp(-0.5))), rel=1e-6)
    assert found[3].item() == pytest.approx(-200.0)


def test_per_token_divides_both_policies_and_is_the_same_twice():
    whole = side(CHOSEN)
    once = whole.per_token()
    expected = [(p - r) / tokens for p, r, tokens in CHOSEN]
    assert once.logratio.tolist() == pytest.approx(expected, rel=1e-12)
    torch.testing.assert_close(once.per_token().logratio, once.logratio)
    torch.testing.assert_close(once.mean_logprob, whole.mean_logprob)


PROBABILITY = torch.tensor([1.0, 0.0, 0.5, 0.8], dtype=torch.float64)


def loss_of(name, correction, flip_probability, probability=PROBABILITY, swap=False):
    sides = (side(REJECTED), side(CHOSEN))
    weights = label_weights(probability, correction, flip_probability)
    return labelled(LOSSES[name], *(sides[::-1] if swap else sides), *weights)


@pytest.mark.parametrize("name", LOSSES)
def test_labels_weigh_both_readings(name):
    found = loss_of(name, "none", 0.0).tolist()
    expected = [
        p * BY_HAND[name](w, r) + (1 - p) * BY_HAND[name](r, w)
        for w, r, p in zip(CHOSEN, REJECTED, PROBABILITY.tolist(), strict=True)
    ]
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("correction", ["none", "smooth", "robust"])
@pytest.mark.parametrize("name", LOSSES)
def test_swapping_outputs_and_label_changes_no_loss(name, correction):
    there, back = (
        loss_of(name, correction, 0.2, probability, swap)
        for probability, swap in ((PROBABILITY, False), (1 - PROBABILITY, True))
    )
    torch.testing.assert_close(there, back)


@pytest.mark.parametrize("name", LOSSES)
def test_corrections_of_labels_that_never_flip_change_no_bit(name):
    for correction in ("smooth", "robust"):
        assert torch.equal(loss_of(name, correction, 0.0), loss_of(name, "none", 0.0))


@pytest.mark.parametrize("correction", ["none", "smooth", "robust"])
def test_a_tie_stays_one(correction):
    tie = torch.full((4,), 0.5, dtype=torch.float64)
    torch.testing.assert_close(label_weights(tie, correction, 0.3), (tie, tie))


@pytest.mark.parametrize("flip_probability", [0.1, 0.25, 0.4])
@pytest.mark.parametrize("name", LOSSES)
def test_robust_losses_are_unbiased(name, flip_probability):
    """Averaged over flips, the loss of the label as it was told is the clean loss of the true one."""
    told, flipped = (
        loss_of(name, "robust", flip_probability, probability)
        for probability in (PROBABILITY, 1 - PROBABILITY)
    )
    mean = (1 - flip_probability) * told + flip_probability * flipped
    torch.testing.assert_close(mean, loss_of(name, "none", 0.0))


def test_smooth_loss_is_least_at_the_odds_that_flips_leave():
    eps = 0.2
    lead = math.log((1 - eps) / eps)
    chosen, rejected = side([(lead, 0.0, 1)]), side([(0.0, 0.0, 1)])
    weights = label_weights(torch.ones(1, dtype=torch.float64), "smooth", eps)
    labelled(partial(preference.dpo, beta=1.0), rejected, chosen, *weights).sum().backward()
    torch.testing.assert_close(chosen.logprob_B.grad, torch.zeros(1, dtype=torch.float64))


def test_kto_is_its_formula():
    logratio = torch.tensor([2.0, -1.0, 0.5, 4.0], dtype=torch.float64)
    desirable = torch.tensor([True, False, True, False])
    found = preference.kto(
        logratio,
        desirable,
        torch.tensor(0.3, dtype=torch.float64),
        beta=0.2,
        desirable_weight=1.5,
        undesirable_weight=0.5,
    )
    expected = [
        1.5 * (1 - sigmoid(0.2 * (x - 0.3))) if good else 0.5 * (1 - sigmoid(0.2 * (0.3 - x)))
        for x, good in zip(logratio.tolist(), desirable.tolist(), strict=True)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-12)


def test_kto_at_the_reference_point_costs_half_its_weight_and_pulls_apart():
    logratio = torch.tensor([0.3, 0.3]).requires_grad_()
    point = torch.tensor(0.3).requires_grad_()
    found = preference.kto(
        logratio,
        torch.tensor([True, False]),
        point,
        beta=0.2,
        desirable_weight=1.0,
        undesirable_weight=2.0,
    )
    torch.testing.assert_close(found, torch.tensor([0.5, 1.0]))
    found.sum().backward()
    torch.testing.assert_close(logratio.grad, torch.tensor([-0.2 / 4, 2 * 0.2 / 4]))
    assert point.grad is None  # nothing is learned through it
