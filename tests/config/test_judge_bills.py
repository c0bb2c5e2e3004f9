"""What plans say that judges behind an API will cost, wherever a run asks one."""

import shutil

import pytest

from alpacafarm.errors import SpecError
from alpacafarm.pipeline.budget import check_budget
from alpacafarm.stage import NOTHING_TO_PAY

API = "{kind: api, model: gpt-4o-mini, prompt: pairwise, answer: label, temperature: 0, max_tokens: 9}"
FRESH = ["method.reward=judge", "method/judge=api", "method.reward_std=null"]
PICKED = ["method.snapshot_every=5", "~method.pick.judge", f"+method.pick.judge={API}"]
PICKED += [f"+method.pick.judge.{key}" for key in ("seed=null", "both_orders=true", "extra=null")]


def bill(made, stage: str):
    (found,) = (one for one in made.plan.stages if one.name == stage)
    return found.bill


def test_feedback_and_evaluation(job):
    made = job("method=ppo", "feedback/judge=api", "eval/judge=api", "eval.judge.both_orders=true")
    assert bill(made, "annotate").judge_calls == 6000  # half of 12,000 pairs are coins
    asked = bill(made, "judge outputs")
    assert asked.judge_calls == 805 * 5 * 2  # the references and four draws, in both orders
    assert asked.price_usd > 0
    assert bill(made, "compare") == NOTHING_TO_PAY


def test_fresh_responses(job):
    asked = ["method.steps=3", "method.rollouts_per_step=64", "method.samples_per_prompt=4"]
    told = bill(job("method=rloo", *FRESH, *asked), "rloo")
    assert told.judge_calls == 3 * 16 * 6  # each of four answers against each other
    assert told.models == ("gpt-4o-mini-2024-07-18",)


@pytest.mark.parametrize(
    ("steps", "budget", "text"),
    [
        (5, "null", "for 1 snapshot about 200 judge calls of gpt-4o-mini, "),
        (40, "null", "for 8 snapshots about 1,600 judge calls of gpt-4o-mini, "),
        (41, "null", "for 9 snapshots about 1,800 judge calls of gpt-4o-mini, "),  # the last is no fifth step
        (41, "10", "for at most 9 snapshots about 1,800 judge calls of gpt-4o-mini, "),
    ],
)
def test_snapshots_are_counted_by_steps(job, steps, budget, text):
    asked = ["data.val=100", f"method.steps={steps}", f"method.kl_budget={budget}"]
    told = bill(job("method=ppo", "method/pick=judge", *PICKED, *asked), "pick by judge")
    assert told.judge_calls == -(-steps // 5) * 100 * 2  # in both orders
    assert told.price_usd > 0
    assert told.tokens_out == told.judge_calls * 9
    assert told.text.startswith(text)


def test_the_budget_knows_of_snapshots_before_they_are_trained(job):
    asked = ["data.val=100", "method.steps=40", "budget.max_calls=1599"]
    made = job("method=ppo", "method/pick=judge", *PICKED, *asked)
    with pytest.raises(SpecError, match=r"budget\.max_calls=1599: the plan is estimated at 1,600 calls"):
        check_budget(made.spec.budget, made.plan.stages)


def test_snapshots_whose_number_is_not_known(job):
    told = bill(job("method=dpo", "method/pick=judge", *PICKED), "pick by judge")
    assert told.judge_calls is None
    assert told.models == ("gpt-4o-mini",)
    assert told.text.startswith("for every snapshot about ")


def test_snapshots_on_rows_that_are_not_counted_yet(job, things, tmp_path):
    val = shutil.copy(things["rows"], tmp_path / "val.json")
    files = [f"data.{split}={things['rows']}" for split in ("sft", "unlabeled", "eval", "preference")]
    asked = [
        "data=files",
        "model=scratch",
        *files,
        f"data.val={val}",
        "eval/judge=reward",
        "feedback/judge=api",
    ]
    told = bill(job("method=ppo", "method/pick=judge", *PICKED, *asked, "method.steps=40"), "pick by judge")
    assert told.judge_calls is None
    assert told.text.startswith("for each of 8 snapshots 200% of the rows judge calls ")


@pytest.mark.parametrize("kind", ["world", "reward"])
def test_judges_that_cost_nothing(job, kind):
    assert bill(job("method=ppo", f"eval/judge={kind}"), "compare").price_usd == 0


def test_rows_that_are_not_counted_yet(job, things):
    files = ["data=files", "model=scratch", "data.sft={rows}", "data.unlabeled={rows}", "data.eval={rows}"]
    asked = [one.format(**things) for one in (*files, "feedback=human", "data.preferences={pairs}")]
    told = bill(job("method=sft", *asked, "eval/judge=api"), "judge outputs")
    assert told.judge_calls is None
    assert told.text.endswith("USD for 1,000 rows")
