import pytest

from alpacafarm.engine.single import SingleProcess
from alpacafarm.judges.fresh import added, tally, verdicts
from alpacafarm.spec.judge import RewardJudge, WorldJudge
from alpacafarm.types import Pair, Verdict

WORLD = WorldJudge(kind="world", pool="sim", pool_seed=0)
PAIRS = [Pair("a", "i", "", "x", "y"), Pair("a", "i", "", "x", "x"), Pair("b", "i", "", "z", "y")]


class Counting:
    """Prefers the second, fails on a first output of z, and remembers what it was asked."""

    name = "counting"

    def __init__(self) -> None:
        self.asked: list[Pair] = []

    def compare(self, pairs):
        self.asked += pairs
        return [Verdict(None if p.output_1 == "z" else 2.0, "me", price_usd=0.5, calls=1) for p in pairs]


def test_equal_texts_are_a_tie_that_costs_nothing():
    judge = Counting()
    found = verdicts(judge, WORLD, PAIRS)
    assert [v.preference for v in found] == [2.0, 1.5, None]
    assert judge.asked == [PAIRS[0], PAIRS[2]]
    told = tally(found, SingleProcess())
    assert told == {"judge_calls": 2, "price_usd": 1.0, "failed_verdicts": 1}


def test_a_reward_model_is_asked_as_often_on_every_rank():
    judge = Counting()
    verdicts(judge, RewardJudge(kind="reward", soft=True), PAIRS)
    assert judge.asked == PAIRS


def test_costs_add_up_over_steps():
    state: dict[str, float] = {"kl_coef": 0.1}
    for _ in range(2):
        state.update(added(state, {"judge_calls": 3.0, "price_usd": 0.25}))
    assert state == {"kl_coef": 0.1, "judge_calls": 6.0, "price_usd": pytest.approx(0.5)}
