import math

import pytest
import torch

from alpacafarm.ops.policy import clipped_surrogate, clipped_value_loss

MASK = torch.tensor([[1, 1, 1, 0], [0, 1, 1, 1]]).bool()


@pytest.fixture
def batch():
    torch.manual_seed(0)
    logprob, advantage = torch.randn(2, 2, 4, dtype=torch.float64)
    return logprob.requires_grad_(), advantage


def test_at_ratio_one_the_gradient_is_minus_the_advantage(batch):
    logprob, advantage = batch
    terms = clipped_surrogate(logprob, logprob.detach(), advantage, MASK, clip=0.2)
    terms.loss.backward()
    torch.testing.assert_close(logprob.grad, -advantage * MASK)
    torch.testing.assert_close(terms.loss, -(advantage * MASK).sum())
    assert terms.clip_fraction == 0
    assert terms.approx_kl == 0
    assert (terms.ratio_BT == 1).all()


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "is_clipped"),
    [
        (1.5, 2.0, -2.4, True),  # gained enough: held at 1.2
        (1.5, -2.0, 3.0, False),  # moved the wrong way: must come back
        (0.5, 2.0, -1.0, False),
        (0.5, -2.0, 1.6, True),
        (1.1, 2.0, -2.2, False),  # within the clip
        (0.9, -2.0, 1.8, False),
    ],
)
def test_gradient_stops_where_the_clip_holds_a_gain(ratio, advantage, loss, is_clipped):
    logprob = torch.tensor([[math.log(ratio)]], requires_grad=True)
    one = torch.ones(1, 1)
    terms = clipped_surrogate(logprob, torch.zeros(1, 1), advantage * one, one, clip=0.2)
    terms.loss.backward()
    torch.testing.assert_close(terms.loss, torch.tensor(loss))
    assert terms.clip_fraction == is_clipped
    torch.testing.assert_close(logprob.grad, torch.tensor([[0.0 if is_clipped else -ratio * advantage]]))


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [(1.5, 1.0, -1.28), (1.25, 1.0, -1.25), (0.5, -1.0, 0.8), (1.5, -1.0, 1.5), (0.5, 1.0, -0.5)],
)
def test_a_higher_upper_clip_leaves_the_lower_one(ratio, advantage, loss):
    logprob, one = torch.tensor([[math.log(ratio)]]), torch.ones(1, 1)
    terms = clipped_surrogate(logprob, torch.zeros(1, 1), advantage * one, one, clip=0.2, clip_high=0.28)
    torch.testing.assert_close(terms.loss, torch.tensor(loss))


def test_surrogate_never_exceeds_the_unclipped_objective(batch):
    logprob, advantage = batch
    old = logprob.detach() + torch.randn(
        2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    terms = clipped_surrogate(logprob, old, advantage, MASK, clip=0.2)
    assert terms.loss > -(advantage * (logprob - old).exp() * MASK).sum()
    unbounded = clipped_surrogate(logprob, old, advantage, MASK, clip=math.inf)
    torch.testing.assert_close(unbounded.loss, -(advantage * (logprob - old).exp() * MASK).sum())


def test_approximate_kl_is_half_the_squared_log_ratio_over_response_tokens(batch):
    logprob, advantage = batch
    terms = clipped_surrogate(logprob, logprob.detach() - 0.1, advantage, MASK, clip=0.2)
    torch.testing.assert_close(terms.approx_kl.item(), 6 * 0.1**2 / 2)


@pytest.mark.parametrize("garbage", [math.nan, math.inf, -1e4])
def test_padding_reaches_neither_loss_nor_gradient(batch, garbage):
    logprob, advantage = batch
    old = logprob.detach() + 0.3
    clean = clipped_surrogate(logprob, old, advantage, MASK, clip=0.2)
    (clean_grad,) = torch.autograd.grad(clean.loss, logprob)
    dirty_logprob = logprob.detach().masked_fill(~MASK, garbage).requires_grad_()
    dirty = clipped_surrogate(dirty_logprob, old, advantage.masked_fill(~MASK, garbage), MASK, clip=0.2)
    (dirty_grad,) = torch.autograd.grad(dirty.loss, dirty_logprob)
    for name in "loss", "clip_fraction", "approx_kl", "ratio_BT":
        torch.testing.assert_close(getattr(dirty, name), getattr(clean, name))
    torch.testing.assert_close(dirty_grad, clean_grad)


def test_losses_of_shards_add_up_to_the_loss_of_the_batch(batch):
    logprob, advantage = batch
    old = logprob.detach() + 0.3
    whole = clipped_surrogate(logprob, old, advantage, MASK, clip=0.2)
    halves = [clipped_surrogate(logprob[b], old[b], advantage[b], MASK[b], clip=0.2) for b in ([0], [1])]
    for name in "loss", "clip_fraction", "approx_kl":
        torch.testing.assert_close(getattr(halves[0], name) + getattr(halves[1], name), getattr(whole, name))


@pytest.mark.parametrize("log_ratio", [50.0, 1000.0, math.inf])
def test_a_broken_token_gives_a_finite_loss_and_no_gradient(log_ratio):
    logprob = torch.tensor([[log_ratio, 0.1]], requires_grad=True)
    advantage = torch.tensor([[-1.0, -1.0]])
    terms = clipped_surrogate(logprob, torch.zeros(1, 2), advantage, torch.ones(1, 2), clip=0.2)
    terms.loss.backward()
    torch.testing.assert_close(terms.loss.item(), math.exp(20) + math.exp(0.1), rtol=1e-6, atol=0.0)
    torch.testing.assert_close(logprob.grad, torch.tensor([[0.0, math.exp(0.1)]]))


def test_only_the_losses_carry_gradients(batch):
    logprob, advantage = batch
    policy = clipped_surrogate(logprob, logprob.detach() - 0.5, advantage, MASK, clip=0.2)
    value = clipped_value_loss(logprob, logprob.detach() - 0.5, advantage, MASK, clip=0.2)
    assert policy.loss.requires_grad
    assert value.loss.requires_grad
    logged = [policy.clip_fraction, policy.approx_kl, policy.ratio_BT, value.clip_fraction]
    assert not any(x.requires_grad for x in logged)


@pytest.mark.parametrize(
    ("value", "target", "loss", "gradient", "is_clipped"),
    [
        (0.1, 1.0, 0.405, -0.9, False),  # within the clip: plain squared error
        (0.5, 1.0, 0.32, 0.0, True),  # nearer the target than the clip allows: no further pull
        (0.5, -1.0, 1.125, 1.5, False),  # overshot the wrong way: pulled back in full
        (-0.5, -1.0, 0.32, 0.0, True),
        (-0.5, 1.0, 1.125, -1.5, False),
    ],
)
def test_value_loss_is_the_larger_of_plain_and_clipped(value, target, loss, gradient, is_clipped):
    new = torch.tensor([[value]], requires_grad=True)
    one = torch.ones(1, 1)
    terms = clipped_value_loss(new, torch.zeros(1, 1), target * one, one, clip=0.2)
    terms.loss.backward()
    torch.testing.assert_close(terms.loss, torch.tensor(loss))
    torch.testing.assert_close(new.grad, torch.tensor([[gradient]]))
    assert terms.clip_fraction == is_clipped


def test_value_loss_without_a_clip_is_half_the_squared_error_of_response_tokens(batch):
    value, target = batch
    terms = clipped_value_loss(value, torch.zeros_like(target), target, MASK, clip=math.inf)
    torch.testing.assert_close(terms.loss, 0.5 * ((value - target)[MASK] ** 2).sum())
    assert terms.clip_fraction == 0


def test_value_loss_is_blind_to_padding(batch):
    value, target = batch
    old = value.detach() - 0.5
    clean = clipped_value_loss(value, old, target, MASK, clip=0.2)
    (clean_grad,) = torch.autograd.grad(clean.loss, value)
    dirty_value = value.detach().masked_fill(~MASK, 1e6).requires_grad_()
    dirty = clipped_value_loss(dirty_value, old, target, MASK, clip=0.2)
    (dirty_grad,) = torch.autograd.grad(dirty.loss, dirty_value)
    torch.testing.assert_close((dirty.loss, dirty.clip_fraction), (clean.loss, clean.clip_fraction))
    torch.testing.assert_close(dirty_grad, clean_grad)
