"""What a judge behind an API will cost, as far as that is known before anything is sampled."""

from __future__ import annotations

from alpacafarm.api.cost import bill_of
from alpacafarm.ports import Upstream
from alpacafarm.request import Request
from alpacafarm.spec.judge import AskedJudge
from alpacafarm.stage import Bill


def asked_bill(judge: AskedJudge, up: Upstream, *, rows: int | None, share: float) -> Bill:
    """Of `share` of the rows. Answers are taken to be as long as the run's model and the judge may make them.

    PlanError where nobody serves the model, or its price is unknown.
    """
    pairs = judge.pairs_per_prompt
    orders = 2 if judge.both_orders else 1
    return bill_of(
        Request(judge.model, prompt=judge.template, parameters=judge.parameters),
        up,
        rows=rows,
        share=share * orders / pairs,
        more_tokens=pairs * up.pair_tokens,
        what="judge calls",
    )
