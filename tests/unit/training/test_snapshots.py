"""Both loops publish the policy on the way; a KL budget ends a training before the step that passes it."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from alpacafarm.methods.sft import demonstrations, negative_log_likelihood, token_steps
from alpacafarm.training.offline import fit
from alpacafarm.training.online import Collected, improve
from tests.unit.methods.conftest import Tiny, optim

OPTIM = optim(1e-2, 8)


def parts(tiny: Tiny, name: str):
    """A context, an engine, its loss, and three steps over 24 rows."""
    ctx = tiny.context(name)
    tokenizer = ctx.tokenizer(tiny.policy)
    policy = ctx.trainable(tiny.policy, OPTIM)
    steps = token_steps(demonstrations(tiny.rows, tokenizer, ctx), 1, OPTIM, tokenizer.pad_token_id, ctx)
    return ctx, policy, negative_log_likelihood(policy), steps


def weights(folder) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder)
    return torch.cat([parameter.flatten() for parameter in model.parameters()])


def names(ctx) -> list[str]:
    return sorted(path.name for path in ctx.out.glob("snapshots/*"))


def test_fixed_data_snapshot_is_the_policy_of_a_shorter_training(tiny):
    ctx, policy, loss, steps = parts(tiny, "long")
    fit(policy, steps, loss, optim=OPTIM, ctx=ctx, label="long", snapshot_every=1)
    assert names(ctx) == ["step-1", "step-2"]  # the third is the model
    assert ctx.facts["steps"] == 3
    short, short_policy, short_loss, _ = parts(tiny, "short")
    update = short_policy.update(steps[0], short_loss, lr=1e-2)
    short_policy.export(short.out / "model")
    assert update.loss > 0
    assert torch.equal(weights(ctx.out / "snapshots" / "step-1"), weights(short.out / "model"))


def improved(tiny: Tiny, name: str, kls: list[float], **limits):
    ctx, policy, loss, steps = parts(tiny, name)
    collected = lambda step, state: Collected([steps[step]], {"kl": kls[step]})  # noqa: E731
    asked = {"name": name, "steps": 3, "optim": OPTIM, "snapshot_every": None, "kl_budget": None, **limits}
    improve(policy, collected, loss, spec=SimpleNamespace(**asked), ctx=ctx)
    ctx.track.close()
    policy.export(ctx.out / "model")
    return ctx


@pytest.mark.parametrize(("budget", "made"), [(None, 3), (9.0, 3), (2.0, 2), (0.5, 1), (0.05, 0)])
def test_training_ends_before_the_update_of_the_step_beyond_the_budget(tiny, budget, made):
    ctx = improved(tiny, "stopped", [0.1, 1.0, 3.0], kl_budget=budget)
    assert ctx.facts["steps"] == made
    log = (ctx.out / "log.jsonl").read_text() if made else ""
    assert log.count("\n") == made


def test_rollout_snapshots_are_every_so_many_steps(tiny):
    ctx = improved(tiny, "snapshots", [0.0] * 3, snapshot_every=2)
    assert names(ctx) == ["step-2"]
    assert not torch.equal(weights(ctx.out / "snapshots" / "step-2"), weights(ctx.out / "model"))
