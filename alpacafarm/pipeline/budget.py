"""A run's bill against its budget, before anything is made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from alpacafarm.api.endpoints import Endpoint
from alpacafarm.api.prices import serving_endpoints
from alpacafarm.errors import SpecError
from alpacafarm.spec.api import ApiSpec, BudgetSpec
from alpacafarm.stage import Stage, in_usd


@dataclass(frozen=True)
class Total:
    """What stages ask of models behind an API. `is_known`: of all of them, not only of some."""

    calls: int
    tokens_in: int
    tokens_out: int
    price_usd: float
    models: tuple[str, ...]
    is_known: bool


def total(stages: Sequence[Stage]) -> Total:
    bills = [stage.bill for stage in stages if stage.bill.models]
    return Total(
        calls=sum(bill.judge_calls or 0 for bill in bills),
        tokens_in=sum(bill.tokens_in for bill in bills),
        tokens_out=sum(bill.tokens_out for bill in bills),
        price_usd=sum(bill.price_usd for bill in bills),
        models=tuple(sorted({model for bill in bills for model in bill.models})),
        is_known=all(bill.judge_calls is not None for bill in bills),
    )


def check_budget(budget: BudgetSpec, stages: Sequence[Stage], *, what: str = "the plan") -> None:
    """SpecError where `stages`, which are to be made, are expected to cost more than is allowed, or nobody
    knows how much."""
    bill = total(stages)
    problems = []
    if budget.max_usd is not None and bill.price_usd > budget.max_usd:
        problems.append(
            f"budget.max_usd={budget.max_usd:g}: {what} is estimated at {bill.price_usd:.2f} USD; raise "
            "it, judge fewer rows or choose a cheaper model; action=plan shows each stage's bill"
        )
    if budget.max_calls is not None and bill.calls > budget.max_calls:
        problems.append(
            f"budget.max_calls={budget.max_calls}: {what} is estimated at {bill.calls:,} calls; raise it "
            "or judge fewer rows; action=plan shows each stage's bill"
        )
    unlimited = sorted({model for stage in stages for model in stage.bill.unlimited})
    if budget.max_usd is not None and unlimited:
        problems.append(
            f"budget.max_usd={budget.max_usd:g}: {', '.join(unlimited)} would be asked without max_tokens, "
            "so nobody knows what an answer costs at most; set max_tokens beside the model, or "
            "budget.max_usd=null"
        )
    if problems:
        raise SpecError("\n".join(problems))


def check_keys(api: ApiSpec, stages: Sequence[Stage]) -> None:
    """JudgeError where an endpoint that will be asked has no key, before anything is trained."""
    for model in total(stages).models:
        for name, spec in serving_endpoints(api.endpoints, model).items():
            Endpoint(name, spec).api_key()


def budget_lines(budget: BudgetSpec, stages: Sequence[Stage]) -> list[str]:
    """The bill of stages that are to be made, and the cap, in words. Nothing where nobody is asked."""
    bill = total(stages)
    if not bill.models:
        return []
    more = "" if bill.is_known else " and what is not known before its rows are"
    caps = {"max_usd": (budget.max_usd, bill.price_usd), "max_calls": (budget.max_calls, bill.calls)}
    told = [
        f"{name}={cap:g}" + f", which the estimate passes: set budget.{name} higher" * (asked > cap)
        for name, (cap, asked) in caps.items()
        if cap is not None
    ]
    return [
        f"asked of {', '.join(bill.models)}: about {bill.calls:,} calls, {bill.tokens_in:,} tokens in and "
        f"{bill.tokens_out:,} out, {in_usd(bill.price_usd)}{more}",
        f"budget: {'; '.join(told) or 'none (budget.max_usd and budget.max_calls set one)'}",
    ]
