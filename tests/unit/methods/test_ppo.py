"""PPO's step: exact ratios, what the penalties do, which prompts are taken."""

import json

import pytest
import torch
from pydantic import ValidationError

from alpacafarm.methods import ppo
from alpacafarm.spec.model import Sampling
from tests.unit.methods.conftest import Tiny, optim


def spec(**changes: object) -> ppo.Spec:
    values = {
        "name": "ppo",
        "fidelity": "corrected",
        "kl_coef": 0.1,
        "adaptive_kl": None,
        "reward_std": 1.0,
        "missing_eos_penalty": 1.0,
        "snapshot_every": None,
        "pick": None,
        "kl_budget": None,
        "steps": 3,
        "rollouts_per_step": 16,
        "epochs_per_rollout": 2,
        "clip": 0.2,
        "value_clip": 0.2,
        "value_coef": 0.1,
        "value_lr_scale": 1.0,
        "gamma": 1.0,
        "lam": 0.95,
        "whiten_rewards": False,
        "sampling": Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=16),
        "optim": optim(lr=1e-2, batch_size=8),
    }
    return ppo.Spec.model_validate({**values, **changes})


def inputs(tiny: Tiny) -> dict:
    return {"init": tiny.policy, "reward": tiny.reward, "rows": tiny.rows}


def logged(tiny: Tiny, name: str) -> list[dict]:
    return [json.loads(line) for line in (tiny.home / name / "out" / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("fidelity", ["corrected", "published"])
def test_every_ratio_is_exactly_one_at_learning_rate_zero(tiny: Tiny, fidelity: str):
    ctx = tiny.context("still")
    ppo.train(spec(optim=optim(lr=0.0, batch_size=8), fidelity=fidelity), inputs(tiny), ctx)
    ctx.track.close()
    rows = logged(tiny, "still")
    assert len(rows) == 3
    for row in rows:
        assert row["approx_kl"] == 0.0
        assert row["clip_fraction"] == 0.0
        assert row["kl"] == 0.0  # the policy is the reference


def test_the_first_minibatch_has_ratio_exactly_one_while_training(tiny: Tiny):
    ctx = tiny.context("moving")
    policy = ctx.trainable(tiny.policy, optim(1e-2, 8), head="actor_critic", critic=tiny.reward)
    collected = ppo.Collector(spec(), inputs(tiny), ctx, policy).collect(0, {})
    loss = ppo.ppo_loss(policy, spec())
    first = policy.update(collected.updates[0], loss, lr=1e-2)
    second = policy.update(collected.updates[1], loss, lr=1e-2)
    assert first.metrics["approx_kl"] == 0.0
    assert second.metrics["approx_kl"] > 0.0


def test_first_policy_loss_is_minus_the_mean_advantage(tiny: Tiny):
    ctx = tiny.context("mean")
    policy = ctx.trainable(tiny.policy, optim(1e-2, 16), head="actor_critic", critic=tiny.reward)
    whole = spec(optim=optim(lr=1e-2, batch_size=16))
    collected = ppo.Collector(whole, inputs(tiny), ctx, policy).collect(0, {})
    update = policy.update(collected.updates[0], ppo.ppo_loss(policy, whole), lr=0.0)
    # The advantages are whitened over just these rows.
    assert update.metrics["loss/policy"] == pytest.approx(0.0, abs=1e-6)


def test_a_response_that_does_not_end_pays_the_penalty(tiny: Tiny):
    scores = []
    for number, penalty in enumerate((0.0, 2.5)):
        ctx = tiny.context(f"penalty{number}")
        policy = ctx.trainable(tiny.policy, optim(1e-2, 8), head="actor_critic", critic=tiny.reward)
        collector = ppo.Collector(spec(missing_eos_penalty=penalty), inputs(tiny), ctx, policy)
        scores.append(collector.rollouts(0)[0])
    without, with_penalty = scores
    unended = ~without.ended_B
    assert unended.any()
    torch.testing.assert_close(without.score_B - with_penalty.score_B, 2.5 * unended.float())


def test_adaptive_kl_moves_the_coefficient_and_survives_in_the_state(tiny: Tiny):
    ctx = tiny.context("adaptive")
    policy = ctx.trainable(tiny.policy, optim(1e-2, 8), head="actor_critic", critic=tiny.reward)
    adaptive = spec(adaptive_kl={"target": 6.0, "k_beta": 0.1})
    state: dict = {}
    ppo.Collector(adaptive, inputs(tiny), ctx, policy).collect(0, state)
    assert state["kl_coef"] == pytest.approx(0.1 * (1 - 0.1 * 0.2))  # no KL yet: the error is at its bound


def test_rollouts_must_be_a_multiple_of_the_batch():
    with pytest.raises(ValidationError, match=r"must be a multiple of .*optim.batch_size=8.*=16"):
        spec(rollouts_per_step=20)
