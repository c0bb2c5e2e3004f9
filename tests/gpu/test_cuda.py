"""On a CUDA device: `pytest -m gpu`. Small stages as on the CPU, where a device could make a difference."""

import json

import pytest
import torch

from alpacafarm.methods import ppo
from alpacafarm.spec.cluster import ClusterSpec
from tests.unit.methods.conftest import CLUSTER, MODEL, Tiny
from tests.unit.methods.conftest import tiny as tiny
from tests.unit.methods.test_ppo import inputs, spec

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def cluster(stage: int) -> ClusterSpec:
    zero = CLUSTER.zero.model_copy(update={"stage": stage})
    return CLUSTER.model_copy(update={"engine": "deepspeed", "zero": zero})


@pytest.mark.parametrize(
    ("dtype", "stage"), [("float32", 0), ("bfloat16", 1), ("bfloat16", 2), ("bfloat16", 3)]
)
def test_ppo_learns_its_rewards_and_ends_in_a_loadable_policy(tiny: Tiny, dtype: str, stage: int):
    from transformers import AutoModelForCausalLM

    ctx = tiny.context("cuda", model=MODEL.model_copy(update={"dtype": dtype}), cluster=cluster(stage))
    ppo.train(spec(), inputs(tiny), ctx)
    ctx.track.close()
    rows = [json.loads(line) for line in (ctx.out / "log.jsonl").read_text().splitlines()]
    assert all(torch.isfinite(torch.tensor(row["loss"])) for row in rows)
    assert rows[0]["kl"] == pytest.approx(0.0, abs=0.05)
    assert AutoModelForCausalLM.from_pretrained(ctx.out / "model").dtype is getattr(torch, dtype)


def test_sampling_on_the_device_gives_the_tokens_of_the_cpu(tiny: Tiny):
    ctx = tiny.context("tokens")
    policy = ctx.frozen(tiny.policy)
    prompts = [[0, 5, 9], [0, 7, 8, 4, 11], [0, 3]]
    with policy.gathered() as model:
        on_device = ctx.sample(model, prompts, spec().sampling, seeds=[1, 2, 3])
        on_cpu = ctx.sample(model.cpu(), prompts, spec().sampling, seeds=[1, 2, 3])
    assert on_device == on_cpu
