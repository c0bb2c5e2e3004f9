"""What the evaluation does with a judge that knows nothing of some pairs."""

from collections.abc import Sequence

import pytest

from alpacafarm.evals.winrate import _judged
from alpacafarm.types import Example, Pair, Verdict

ROWS = [Example("a", "Say yes."), Example("b", "Say no.")]


class Judge:
    """Knows the rows in `known`, and prefers the second output."""

    name = "some"

    def __init__(self, known: str) -> None:
        self.known = known

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return [Verdict(2.0 if pair.id in self.known else None, self.name, calls=1) for pair in pairs]


class Bill:
    calls = 0

    def spend(self, *, judge_calls: int, price_usd: float) -> None:
        self.calls += judge_calls


def judged(known: str, bill: Bill) -> dict | None:
    answers = {row.id: "New." for row in ROWS}
    return _judged(ROWS, {row.id: ["Old."] for row in ROWS}, answers, Judge(known), bill, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(("known", "failures"), [("ab", 0), ("b", 1)])
def test_failed_verdicts_are_counted_and_left_out(known: str, failures: int):
    rate = judged(known, Bill())
    assert rate is not None
    assert (rate["win_rate"], rate["n_total"], rate["n_failures"]) == (100.0, 2 - failures, failures)


def test_no_verdict_at_all_is_no_rate_and_was_paid_for():
    bill = Bill()
    assert judged("", bill) is None
    assert bill.calls == 2
