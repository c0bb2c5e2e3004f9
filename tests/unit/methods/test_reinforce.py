"""The critic-free methods as stages: exact ratios, what a judge's tournament does, what is refused."""

import json
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file

from alpacafarm.methods import reinforce
from alpacafarm.spec.model import Sampling
from tests.unit.methods.conftest import CLUSTER, Tiny, optim

WORLD = {"kind": "world", "pool": "sim", "pool_seed": 0}
JUDGED = {"reward": "judge", "judge": WORLD, "reward_std": None}


def spec(**changes: object) -> reinforce.Spec:
    values = {
        "name": "grpo",
        "estimator": "grpo",
        "samples_per_prompt": 4,
        "reward": "model",
        "judge": None,
        "reward_std": 1.0,
        "missing_eos_penalty": 1.0,
        "kl_coef": 0.1,
        "kl_placement": "loss",
        "kl_estimator": "k2",
        "clip": 0.2,
        "clip_high": None,
        "loss_normalisation": "sequence",
        "steps": 2,
        "rollouts_per_step": 16,
        "epochs_per_rollout": 2,
        "snapshot_every": None,
        "pick": None,
        "kl_budget": None,
        "sampling": Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=16),
        "optim": optim(lr=1e-2, batch_size=8),
    }
    return reinforce.Spec.model_validate({**values, **changes})


def inputs(tiny: Tiny) -> dict:
    return {"init": tiny.policy, "reward": tiny.reward, "rows": tiny.rows}


def trained(tiny: Tiny, name: str, asked: reinforce.Spec, **context: object):
    ctx = tiny.context(name, **context)
    reinforce.train(asked, inputs(tiny), ctx)
    ctx.track.close()
    return ctx, [json.loads(line) for line in (ctx.out / "log.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.parametrize("placement", ["reward", "loss"])
@pytest.mark.parametrize("estimator", ["reinforce", "rloo", "grpo", "dr_grpo", "reinforce_pp"])
def test_learning_rate_zero_leaves_everything(tiny: Tiny, estimator: str, placement: str):
    asked = spec(
        estimator=estimator,
        kl_placement=placement,
        kl_estimator="k1" if placement == "reward" else "k3",
        optim=optim(lr=0.0, batch_size=8),
    )
    ctx, rows = trained(tiny, "still", asked)
    assert len(rows) == 2
    for row in rows:
        assert row["approx_kl"] == row["clip_fraction"] == row["kl"] == row["loss/kl"] == 0.0
        assert row["ratio/mean"] == 1.0
    before, after = weights(tiny.policy.path), weights(ctx.out / "model")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_first_minibatch_has_ratio_exactly_one_while_training(tiny: Tiny):
    ctx = tiny.context("moving")
    policy = ctx.trainable(tiny.policy, optim(1e-2, 8))
    collected = reinforce.Collector(spec(), inputs(tiny), ctx, policy).collect(0, {})
    loss = reinforce.policy_gradient(policy, spec())
    first, second = (policy.update(batches, loss, lr=1e-2) for batches in collected.updates[:2])
    assert first.metrics["approx_kl"] == 0.0
    assert second.metrics["approx_kl"] > 0.0


@pytest.mark.parametrize("normalisation", ["token", "sequence", "constant"])
def test_the_update_does_not_depend_on_the_micro_batch(tiny: Tiny, normalisation: str):
    logs = []
    for size in (1, 3, 16):
        cluster = CLUSTER.model_copy(update={"micro_batch": size})
        asked = spec(loss_normalisation=normalisation, optim=optim(1e-3, 8), epochs_per_rollout=1)
        logs.append(trained(tiny, f"m{size}", asked, cluster=cluster)[1])
    for other in logs[1:]:
        for one, two in zip(logs[0], other, strict=True):
            assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)


def test_a_response_that_does_not_end_pays_the_penalty(tiny: Tiny):
    found = []
    for penalty in (0.0, 2.5):
        ctx = tiny.context(f"penalty{penalty}")
        policy = ctx.trainable(tiny.policy, optim(1e-2, 8))
        asked = spec(missing_eos_penalty=penalty)
        found.append(reinforce.Collector(asked, inputs(tiny), ctx, policy).rollouts(0)[0])
    assert (~found[0].ended_B).any()
    torch.testing.assert_close(found[0].score_B - found[1].score_B, 2.5 * (~found[0].ended_B).float())


def test_a_judges_scores_are_a_tournament_in_every_group(tiny: Tiny):
    ctx = tiny.context("judged")
    policy = ctx.trainable(tiny.policy, optim(1e-2, 8))
    given = {name: artifact for name, artifact in inputs(tiny).items() if name != "reward"}
    collector = reinforce.Collector(spec(**JUDGED, missing_eos_penalty=0.0), given, ctx, policy)
    rollouts, _, cost = collector.rollouts(0)
    groups = torch.tensor(rollouts.raw).view(4, 4)
    torch.testing.assert_close(groups.sum(1), torch.zeros(4))
    assert groups.abs().max() <= 0.5
    assert groups.any()
    assert 0 < cost["judge_calls"] <= 4 * 6
    torch.testing.assert_close(rollouts.score_B, torch.tensor(rollouts.raw))


def test_what_a_judge_costs_is_spent_and_survives_in_the_state(tiny: Tiny):
    ctx, _ = trained(tiny, "paid", spec(**JUDGED))
    assert 0 < ctx.cost["judge_calls"] <= 2 * 4 * 6
    assert ctx.facts["failed_verdicts"] == 0
    collector = reinforce.Collector(
        spec(**JUDGED), inputs(tiny), ctx, ctx.trainable(tiny.policy, optim(1e-2, 8))
    )
    state = {"judge_calls": 100.0, "price_usd": 0.0, "failed_verdicts": 0.0}
    collector.collect(0, state)
    assert state["judge_calls"] > 100
    assert collector.cost["judge_calls"] == state["judge_calls"]


@pytest.mark.parametrize(
    ("estimator", "placement", "in_reward", "in_loss"),
    [
        ("rloo", "reward", 0.2, 0.0),
        ("grpo", "reward", 0.2, 0.0),
        ("dr_grpo", "loss", 0.0, 0.2),
        ("grpo", "loss", 0.0, 0.1),
    ],
)
def test_the_kl_is_weighed_against_the_unit_of_the_advantage(estimator, placement, in_reward, in_loss):
    asked = spec(
        estimator=estimator,
        kl_placement=placement,
        kl_estimator="k1" if placement == "reward" else "k2",
        reward_std=0.5,
    )
    assert (asked.kl_in_reward, asked.kl_in_loss) == (in_reward, in_loss)


def test_problems_are_told_together():
    with pytest.raises(ValidationError) as caught:
        spec(samples_per_prompt=1, kl_estimator="k1", clip=None, clip_high=0.3)
    assert [error["loc"] for error in caught.value.errors()] == [
        ("samples_per_prompt",),
        ("kl_estimator",),
        ("clip_high",),
    ]
