"""What a judge behind an API will cost, as far as that is known before anything is sampled."""

from __future__ import annotations

from alpacafarm.api.tokens import UNLIMITED, answer_limit, expected_tokens_in
from alpacafarm.ports import Upstream
from alpacafarm.request import Request
from alpacafarm.spec.judge import AskedJudge
from alpacafarm.stage import Bill

THOUSAND = 1000


def asked_bill(judge: AskedJudge, up: Upstream, *, rows: int | None, share: float, split: str) -> Bill:
    """Of `share` of the rows. Answers are taken to be as long as the run's model and the judge may make them.

    PlanError where nobody serves the model, or its price is unknown.
    """
    price = up.price(judge.model)
    pairs = judge.pairs_per_prompt
    orders = 2 if judge.both_orders else 1
    prompt = Request(judge.model, prompt=judge.template, parameters=judge.parameters)
    limit = answer_limit(prompt)
    tokens_in = expected_tokens_in(prompt) + pairs * up.pair_tokens
    tokens_out = UNLIMITED if limit is None else limit
    calls = round((THOUSAND if rows is None else rows) * share * orders / pairs)
    usd = price.usd(calls * tokens_in, calls * tokens_out)
    if rows is None:
        text = (
            f"{share * orders / pairs:.0%} of the {split} rows judge calls of {judge.model}, at most about "
            f"{usd:.2f} USD for {THOUSAND:,} rows"
        )
        return Bill(text, judge_calls=None, models=(judge.model,))
    return Bill(
        f"about {calls:,} judge calls of {judge.model}, at most about {usd:.2f} USD",
        calls,
        usd,
        tokens_in=calls * tokens_in,
        tokens_out=calls * tokens_out,
        models=(judge.model,),
    )
