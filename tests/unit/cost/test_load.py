"""What stages hold and do at once, read off their plans."""

import pytest

from alpacafarm import run
from alpacafarm.cost.load import Load, load_of

SMALL = ("cluster.micro_batch=8", "cluster.generation_batch=50")


def load(stage: str, *overrides: str, world: int = 1) -> Load:
    (job,) = run.check(["force=true", *SMALL, *overrides])
    assert isinstance(job, run.Job)
    found = next(one for one in job.plan.stages if one.name == stage)
    told = load_of(found, job.spec, world)
    assert told is not None
    return told


def roles(told: Load) -> tuple[list[str], list[str]]:
    return [net.role for net in told.trained], [net.role for net in told.frozen]


@pytest.mark.parametrize(
    ("method", "trained", "frozen"),
    [
        ("sft", ["policy"], []),
        ("rm", ["reward model"], []),
        ("dpo", ["policy"], []),
        ("ppo", ["policy", "critic"], ["reference", "reward"]),
        ("rloo", ["policy"], ["reference", "reward"]),
        ("online_dpo", ["policy"], ["reference", "reward"]),
        ("quark", ["policy"], ["reference", "reward"]),
    ],
)
def test_the_models_of_a_method(method, trained, frozen):
    assert roles(load(method, f"method={method}")) == (trained, frozen)


def test_every_member_of_an_ensemble_is_there(tmp_path):
    of_the_plan = load("ppo", "method=ppo", "method@upstream.rm=rm_ensemble", "upstream.rm.members=3")
    assert roles(of_the_plan)[1] == ["reference", "reward", "reward 2", "reward 3"]
    assert len({net.parameters for net in of_the_plan.frozen[1:]}) == 1


def test_a_reward_model_has_a_score_in_place_of_its_head():
    policy, critic = load("ppo", "method=ppo").trained
    assert critic.parameters == policy.shape.parameters + policy.shape.hidden  # whose head is tied


def test_rows_of_a_micro_batch():
    assert load("sft", "method=sft").rows == 8
    assert load("rm", "method=rm").rows == 16  # both sides of 8 pairs
    assert load("rm", "method=rm", "method.optim.batch_size=4").rows == 8
    assert load("online_dpo", "method=online_dpo").rows == 16  # 8 groups of two


def test_micro_batches_of_an_update_are_those_of_one_process():
    sft = ("method=sft", "method.optim.batch_size=64")
    assert load("sft", *sft).micro_batches == 8
    assert load("sft", *sft, world=4).micro_batches == 2
    assert load("sft", *sft, world=64).micro_batches == 1
    assert load("online_dpo", "method=online_dpo", "method.optim.batch_size=64").micro_batches == 4


def test_what_is_sampled_at_once():
    ppo = ("method=ppo", "method.rollouts_per_step=64", "method.optim.batch_size=64")
    assert load("ppo", *ppo).sampled == 50
    assert load("ppo", *ppo, world=4).sampled == 16
    decoding = load("decode policy", "method=sft", "eval.sampling.max_new_tokens=40")
    assert (decoding.sampled, decoding.measured, decoding.response) == (50, 0, 40)
    assert load("sft", "method=sft").sampled == 0
