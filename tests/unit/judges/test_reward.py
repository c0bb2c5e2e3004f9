"""A reward model as judge, its scores given."""

import math

import pytest

from alpacafarm.judges.reward import RewardModelJudge
from alpacafarm.types import Pair

PAIR = Pair("a", "add", "", "one", "two")


def told(score_1, score_2, *, soft=False):
    scores = {"one": score_1, "two": score_2}
    judge = RewardModelJudge(lambda texts: [scores[output] for *_, output in texts], soft=soft, name="rm")
    (verdict,) = judge.compare([PAIR])
    return verdict


def test_the_higher_score_is_preferred():
    assert [told(1.0, 0.0).preference, told(0.0, 1.0).preference, told(2.0, 2.0).preference] == [
        1.0,
        2.0,
        1.5,
    ]


def test_a_soft_preference_is_the_bradley_terry_probability():
    assert told(0.0, math.log(3), soft=True).preference == pytest.approx(1.75)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("scores", [(math.nan, 0.0), (0.0, math.inf)])
def test_what_is_no_number_is_no_verdict(scores, soft):
    verdict = told(*scores, soft=soft)
    assert verdict.preference is None
    assert "no numbers" in (verdict.failure or "")
