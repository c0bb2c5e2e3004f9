"""What the evaluation does with a judge that knows nothing of some pairs."""

from collections.abc import Sequence

import pytest

from alpacafarm.evals.winrate import _failures, _judged, _rate
from alpacafarm.types import Example, Pair, Verdict

ROWS = [Example("a", "Say yes."), Example("b", "Say no.")]


class Judge:
    """Knows the rows in `known`, and prefers the second output."""

    name = "some"

    def __init__(self, known: str) -> None:
        self.known = known

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return [self._verdict(pair) for pair in pairs]

    def _verdict(self, pair: Pair) -> Verdict:
        if pair.id in self.known:
            return Verdict(2.0, self.name, calls=1)
        return Verdict(None, self.name, failure=f"refused: row {pair.id}", calls=1)


class Bill:
    calls = 0

    def spend(self, *, judge_calls: int, price_usd: float) -> None:
        self.calls += judge_calls


def judged(known: str, bill: Bill) -> list[tuple[Pair, Verdict]]:
    answers = {row.id: "New." for row in ROWS}
    return _judged(ROWS, {row.id: ["Old."] for row in ROWS}, answers, Judge(known), bill)  # type: ignore[arg-type]


@pytest.mark.parametrize(("known", "failures"), [("ab", 0), ("b", 1)])
def test_failed_verdicts_are_counted_by_their_kind_and_left_out(known: str, failures: int):
    told = judged(known, Bill())
    rate = _rate(told)
    assert rate is not None
    assert (rate["win_rate"], rate["n_total"], rate["n_failures"]) == (100.0, 2 - failures, failures)
    assert _failures(told) == ({"refused": failures} if failures else {})


def test_no_verdict_at_all_is_no_rate_and_was_paid_for():
    bill = Bill()
    told = judged("", bill)
    assert _rate(told) is None
    assert _failures(told) == {"refused": 2}
    assert bill.calls == 2
