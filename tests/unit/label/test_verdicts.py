"""What people's labels amount to."""

import pytest

from alpacafarm.label.labels import Label
from alpacafarm.label.verdicts import agreement, counted, judged
from alpacafarm.types import Pair

PAIRS = [Pair(name, f"do {name}", "", "x", "y") for name in "abcd"]


def labels(*told: str) -> list[Label]:
    """`a ann 1` and so on."""
    return [Label(text, *text.split(), swapped=False) for text in told]


@pytest.mark.parametrize(
    ("votes", "majority", "mean"),
    [
        ([1.0], 1, 1),
        ([1.0, 2.0], 1.5, 1.5),
        ([2.0, 2.0, 1.0], 2, 5 / 3),
        ([1.5, 1.5, 2.0], 1.5, 5 / 3),
        ([1.0, 1.5, 2.0], 1.5, 1.5),
        ([1.5, 2.0], 1.5, 1.75),
        ([1.0, 1.0, 2.0, 2.0, 1.5], 1.5, 1.5),
    ],
)
def test_counting(votes, majority, mean):
    assert counted(votes, "majority") == majority
    assert counted(votes, "mean") == pytest.approx(mean)


def test_pairs_come_in_their_own_order_with_those_who_judged():
    given = labels("b ben 2", "b ann 2", "a ann 1", "a ben tie", "c ann skip", "c ben skip", "d ann 1")
    rows = judged(PAIRS, given, labels_per_pair=2, count="majority")
    assert [(row.id, row.preference, row.annotator) for row in rows] == [
        ("a", 1.5, "ann, ben"),
        ("b", 2.0, "ann, ben"),
    ]
    assert [row.instruction for row in rows] == ["do a", "do b"]


def test_one_who_skipped_is_no_judge():
    (row,) = judged(PAIRS, labels("a ann skip", "a ben 2"), labels_per_pair=2, count="majority")
    assert (row.preference, row.annotator) == (2.0, "ben")


def test_agreement_is_of_verdicts_on_pairs_that_several_judged():
    given = labels("a ann 1", "a ben 1", "b ann 1", "b ben 2", "c ann 2", "c ben skip", "d cem 1")
    told = agreement(given)
    assert (told["pairs"], told["equal"]) == (2, 0.5)
    assert told["alpha"] == pytest.approx(0)  # 1 - 3 * 2 / 6
    assert told["kappas"] == [{"first": "ann", "second": "ben", "pairs": 2, "kappa": 0.0}]
    assert agreement([]) == {"pairs": 0, "equal": None, "alpha": None, "kappas": []}
