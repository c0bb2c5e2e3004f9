"""A plan that is expected to cost more than is allowed is refused before anything is made."""

import pytest

from alpacafarm.errors import JudgeError, SpecError
from alpacafarm.pipeline.budget import budget_lines, check_budget, check_keys, total
from alpacafarm.spec.api import ApiSpec, BudgetSpec, EndpointSpec
from alpacafarm.stage import Bill, Kind, Stage


def stage(name: str, bill: Bill) -> Stage:
    return Stage(name, "module:function", Kind.PAIRS, {"name": name}, {}, 0, bill=bill)


ASKS = stage("annotate", Bill("", 100, 2.5, tokens_in=1000, tokens_out=50, models=("gpt-4o",)))
MORE = stage("compare", Bill("", 10, 0.5, tokens_in=10, tokens_out=5, models=("gpt-4o", "llama")))
FREE = stage("world", Bill("", 805, 0.0))


def cap(max_usd: float | None = None, max_calls: int | None = None) -> BudgetSpec:
    return BudgetSpec(max_usd=max_usd, max_calls=max_calls)


def test_only_models_behind_an_api_count():
    found = total([ASKS, MORE, FREE])
    assert (found.calls, found.tokens_in, found.tokens_out, found.price_usd) == (110, 1010, 55, 3.0)
    assert found.models == ("gpt-4o", "llama")


def test_estimate_at_the_cap_passes_and_above_is_refused():
    check_budget(cap(3.0, 110), [ASKS, MORE, FREE])
    check_budget(cap(), [ASKS, MORE, FREE])
    with pytest.raises(
        SpecError, match=r"^budget\.max_usd=2\.9: the plan is estimated at 3\.00 USD; raise it, "
    ):
        check_budget(cap(2.9), [ASKS, MORE])
    with pytest.raises(
        SpecError, match=r"^budget\.max_calls=109: the plan is estimated at 110 calls; raise it "
    ):
        check_budget(cap(None, 109), [ASKS, MORE])


def test_a_price_that_has_no_bound_goes_with_no_cap():
    anything = stage("annotate", Bill("", 1, 0.1, models=("o3",), unlimited=("o3",)))
    check_budget(cap(None, 5), [anything])
    with pytest.raises(
        SpecError, match=r"^budget\.max_usd=5: o3 would be asked without max_tokens.*set max_tokens beside"
    ):
        check_budget(cap(5.0), [anything])


def test_nothing_to_make_costs_nothing():
    check_budget(cap(0.0, 0), [FREE])
    assert budget_lines(cap(0.0, 0), [FREE]) == []


def test_the_bill_is_told_with_tokens_and_budget():
    first, second = budget_lines(cap(5.0, None), [ASKS, FREE])
    assert first == "asked of gpt-4o: about 100 calls, 1,000 tokens in and 50 out, 2.50 USD"
    assert second == "budget: max_usd=5"
    assert budget_lines(cap(5.0, 99), [ASKS])[1] == (
        "budget: max_usd=5; max_calls=99, which the estimate passes: set budget.max_calls higher"
    )
    unknown = stage("annotate", Bill("", None, models=("m",)))
    assert budget_lines(cap(), [unknown])[0].endswith("and what is not known before its rows are")
    assert budget_lines(cap(), [unknown])[1].startswith("budget: none")


def test_a_missing_key_is_told_before_anything_is_trained(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    paid = EndpointSpec(base_url="https://api.openai.com/v1", api_key_env="MY_KEY")
    own = EndpointSpec(base_url="http://localhost:8000/v1", models=["gpt-4o", "llama"])
    with pytest.raises(JudgeError, match=r"endpoint paid .*needs a key.*MY_KEY"):
        check_keys(ApiSpec(endpoints={"paid": paid}, prices=None), [ASKS])
    check_keys(ApiSpec(endpoints={"paid": paid}, prices=None), [FREE])
    check_keys(ApiSpec(endpoints={"paid": paid, "own": own}, prices=None), [ASKS, MORE])
