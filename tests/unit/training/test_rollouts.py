"""Advantages: `published` against alpaca_farm's formulas written out, `corrected` blind to padding."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from alpacafarm.engine.dist import SingleProcess
from alpacafarm.training.rollouts import (
    Advantages,
    CriticRollouts,
    Fidelity,
    Shaping,
    advantages,
    rollout_metrics,
)

WIDTH = 7
LENGTHS = (2, 5, 3)


def rollouts(time: int = 5) -> CriticRollouts:
    generator = torch.Generator().manual_seed(0)
    mask = torch.zeros(3, time, dtype=torch.bool)
    for row, length in enumerate(LENGTHS):
        mask[row, :length] = True

    def drawn() -> Tensor:
        values = torch.zeros(3, time)
        values[:, :5] = torch.randn(3, 5, generator=generator)
        return values * mask

    return CriticRollouts(
        ended_B=torch.ones(3, dtype=torch.bool),
        mask_BT=mask,
        logprob_BT=drawn(),
        reference_logprob_BT=drawn(),
        value_BT=drawn(),
        raw=[1.0, -0.5, 2.0],
        score_B=torch.tensor([1.0, -0.5, 2.0]),
    )


def shaping(fidelity: Fidelity, *, whiten_rewards: bool = True, lam: float = 1.0) -> Shaping:
    return Shaping(
        kl_coef=0.1,
        reward_std=1.0,
        gamma=1.0,
        lam=lam,
        whiten_rewards=whiten_rewards,
        fidelity=fidelity,
    )


def found(fidelity: Fidelity, time: int = 5, width: int = WIDTH, lam: float = 1.0) -> Advantages:
    return advantages(rollouts(time), shaping(fidelity, lam=lam), SingleProcess(), width)


def as_alpaca_farm(given: CriticRollouts, lam: float) -> tuple[Tensor, Tensor]:
    """`_shape_reward` and `_estimate_advantage` of its rl/ppo_trainer.py, with a value of zero on padding."""

    def whitened(x: Tensor, shift_mean: bool) -> Tensor:
        mean, std = x.mean(), x.std(correction=0)
        return (x - mean) / (std + 1e-8) + (0 if shift_mean else mean)

    reward, value = torch.zeros(3, WIDTH), torch.zeros(3, WIDTH)
    value[:, :5] = given.value_BT
    reward[:, :5] = -0.1 * (given.logprob_BT - given.reference_logprob_BT).clamp(min=0)
    for row, length in enumerate(LENGTHS):
        reward[row, length - 1] += given.score_B[row]
    reward = whitened(reward, shift_mean=False)
    advantage, carry = torch.zeros(3, WIDTH), torch.zeros(3)
    for t in reversed(range(WIDTH)):
        following = value[:, t + 1] if t + 1 < WIDTH else 0.0
        carry = reward[:, t] + following - value[:, t] + lam * carry
        advantage[:, t] = carry
    return whitened(advantage, shift_mean=True), advantage + value


@pytest.mark.parametrize("lam", [1.0, 0.95])
def test_published_advantages_and_returns_are_alpaca_farms(lam: float):
    given = rollouts()
    advantage, value_target = as_alpaca_farm(given, lam)
    ours = found("published", lam=lam)
    mask = given.mask_BT
    torch.testing.assert_close(ours.advantage_BT[mask], advantage[:, :5][mask])
    torch.testing.assert_close(ours.return_BT[mask], value_target[:, :5][mask])


def test_corrected_advantages_do_not_see_padding():
    narrow, wide = found("corrected", time=5), found("corrected", time=6, width=300)
    torch.testing.assert_close(wide.advantage_BT[:, :5], narrow.advantage_BT)
    torch.testing.assert_close(wide.return_BT[:, :5], narrow.return_BT)
    assert not wide.advantage_BT[~rollouts(6).mask_BT].any()


def test_corrected_advantages_are_white_over_response_tokens():
    white = found("corrected").advantage_BT[rollouts().mask_BT]
    assert white.mean() == pytest.approx(0.0, abs=1e-6)
    assert white.std(correction=0) == pytest.approx(1.0, abs=1e-6)


def test_corrected_rewards_pay_nothing_for_length_wherever_the_reward_model_has_its_zero():
    given = rollouts()
    nothing = torch.zeros_like(given.value_BT)
    equal = torch.full((3,), 3.0)
    given = replace(given, logprob_BT=nothing, reference_logprob_BT=nothing, value_BT=nothing, score_B=equal)
    first = {
        fidelity: advantages(given, shaping(fidelity), SingleProcess(), WIDTH).return_BT[:, 0]
        for fidelity in ("corrected", "published")
    }
    torch.testing.assert_close(first["corrected"], first["corrected"][:1].expand(3))
    assert first["corrected"][0] > 0
    padded = advantages(given, shaping("published"), SingleProcess(), WIDTH).reward_BT
    assert padded[0, 0] != 0  # a token that nothing was earned by


def test_the_penalised_kl_is_logged_where_it_is_not_k1():
    given = rollouts()
    metrics = {
        fidelity: rollout_metrics(given, found(fidelity), SingleProcess(), fidelity=fidelity)
        for fidelity in ("corrected", "published")
    }
    expected = (given.logprob_BT - given.reference_logprob_BT).clamp(min=0).sum() / 3
    assert metrics["published"]["kl/clamped"] == pytest.approx(expected.item())
    assert "kl/clamped" not in metrics["corrected"]
