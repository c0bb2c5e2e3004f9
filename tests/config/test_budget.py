"""A run that would pass its budget, or has no key, is refused before anything is made."""

import json

import pytest

from alpacafarm import compose, run
from alpacafarm.errors import JudgeError, SpecError

JUDGED = ("method=sft", "eval/judge=api", "data.eval=40")


def test_estimate_above_the_budget_is_refused_with_nothing_made(job, tmp_path):
    asked = job(*JUDGED, f"store={tmp_path / 'store'}", "budget.max_calls=39", "budget.max_usd=0.001")
    with pytest.raises(
        SpecError, match=r"(?s)budget\.max_usd=0\.001: the plan.*\nbudget\.max_calls=39: the plan is"
    ):
        run.perform(asked, tmp_path / "run")
    assert not (tmp_path / "store").exists()
    assert "budget.max_calls=39" in (tmp_path / "run" / "failure.json").read_text()


def test_missing_key_is_told_before_anything_is_trained(job, tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    asked = job(*JUDGED, f"store={tmp_path / 'store'}")
    with pytest.raises(JudgeError, match=r"endpoint openai \(https://api\.openai\.com/v1\): it needs a key"):
        run.perform(asked, tmp_path / "run")
    assert not (tmp_path / "store").exists()


def test_endpoints_budgets_and_prices_are_in_no_key(job, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("gpt-4o-mini-2024-07-18: {input: 9, output: 9}")
    plain = job(*JUDGED)
    other = job(
        *JUDGED,
        "api.endpoints.openai.concurrency=3",
        "api.endpoints.openai.base_url=http://localhost:1/v1",
        "+api.endpoints.own={base_url: 'http://localhost:2/v1', models: [llama]}",
        f"api.prices={prices}",
        "budget.max_calls=3",
    )
    assert [stage.key for stage in plain.plan.stages] == [stage.key for stage in other.plan.stages]


@pytest.mark.parametrize(
    "changed",
    ["model=gpt-4o", "temperature=0.5", "seed=1", "both_orders=true", "max_tokens=99", "answer=json"],
)
def test_what_changes_the_question_makes_the_stage_anew(job, changed):
    key, changed_key = job(*JUDGED).plan.scores.key, job(*JUDGED, f"eval.judge.{changed}").plan.scores.key
    assert key != changed_key


def test_a_saved_spec_repeats_endpoints_and_budget(job, tmp_path):
    prices = tmp_path / "prices.yaml"
    prices.write_text("mine: {input: 1, output: 1}")
    first = job(*JUDGED, f"api.prices={prices}", "budget.max_usd=3", "api.endpoints.openai.tries=2")
    saved = tmp_path / "spec.json"
    saved.write_text(json.dumps(compose.anywhere(first.spec)))
    again = job(f"spec={saved}", "budget.max_usd=4")
    assert again.spec.api == first.spec.api
    assert again.spec.budget.max_usd == 4
    assert [stage.key for stage in again.plan.stages] == [stage.key for stage in first.plan.stages]
