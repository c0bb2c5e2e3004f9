"""What asking a model will cost, as far as that is known before it is asked."""

from __future__ import annotations

from alpacafarm.api.tokens import answer_limit, expected_tokens_in, most_tokens_out
from alpacafarm.ports import Upstream
from alpacafarm.request import Request
from alpacafarm.stage import Bill, in_usd

THOUSAND = 1000


def bill_of(
    question: Request, up: Upstream, *, rows: int | None, share: float, more_tokens: int, what: str
) -> Bill:
    """Of asking `question`, with `more_tokens` filled into it, `share` times for each of the rows.

    Answers are taken to be as long as they may be. `what` names the calls, and `rows` is None where it is not
    known how many there are. PlanError where nobody serves the model, or its price is unknown.
    """
    price = up.price(question.model)
    tokens_in, tokens_out = expected_tokens_in(question) + more_tokens, most_tokens_out(question)
    calls = round((THOUSAND if rows is None else rows) * share)
    usd = price.usd(calls * tokens_in, calls * tokens_out)
    told = f"at most about {in_usd(usd)}" if usd else in_usd(usd)
    unlimited = (question.model,) if answer_limit(question) is None and not price.is_free else ()
    if rows is None:
        text = f"{share:.0%} of the rows {what} of {question.model}, {told} for {THOUSAND:,} rows"
        return Bill(text, judge_calls=None, models=(question.model,), unlimited=unlimited)
    return Bill(
        f"about {calls:,} {what} of {question.model}, {told}",
        calls,
        usd,
        tokens_in=calls * tokens_in,
        tokens_out=calls * tokens_out,
        models=(question.model,),
        unlimited=unlimited,
    )
