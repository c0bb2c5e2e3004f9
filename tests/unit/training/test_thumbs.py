"""Thumbs from pairs, and the mismatched responses that KTO's reference point is measured on."""

import pytest

from alpacafarm.errors import SpecError
from alpacafarm.text.collate import Tokens
from alpacafarm.training.pairs import TokenPairs
from alpacafarm.training.thumbs import mismatched, sides_as_thumbs
from alpacafarm.types import Preference

PREFERENCES = (1.0, 2.0, 1.5, 1.8)


def pairs(count: int = 200) -> TokenPairs:
    """Pair i asks prompt i; its responses are 2i and 2i + 1."""
    return TokenPairs(
        [Tokens((i,), (2 * i,)) for i in range(count)],
        [Tokens((i,), (2 * i + 1,)) for i in range(count)],
        [Preference(str(i), "", "", "", "", PREFERENCES[i % 4]) for i in range(count)],
    )


def test_both_sides_count_by_their_labels_and_ties_do_not():
    found = sides_as_thumbs(pairs(4), unpaired=False, seed=0)
    assert [row.response[0] for row in found.rows] == [0, 1, 2, 3, 6, 7]
    assert found.is_desirable == [True, False, False, True, False, True]


def test_unpaired_keeps_one_side_of_each_by_the_seed():
    whole, found = (sides_as_thumbs(pairs(), unpaired=u, seed=3) for u in (False, True))
    label = dict(zip(whole.rows, whole.is_desirable, strict=True))
    assert len({row.prompt for row in found.rows}) == len(found) == 150
    assert [label[row] for row in found.rows] == found.is_desirable
    assert 50 < sum(found.is_desirable) < 100
    assert sides_as_thumbs(pairs(), unpaired=True, seed=3) == found
    assert sides_as_thumbs(pairs(), unpaired=True, seed=4) != found


def test_mismatched_rows_keep_the_prompt_and_answer_another():
    rows = sides_as_thumbs(pairs(), unpaired=False, seed=0).rows
    others = mismatched(rows, seed=0)
    assert [row.prompt for row in others] == [row.prompt for row in rows]
    answers = {row.response: row.prompt for row in rows}
    assert all(answers[other.response] != other.prompt for other in others)
    assert {answers[other.response] for other in others} == {row.prompt for row in rows}
    assert mismatched(rows, seed=1) != others


def test_mismatched_rows_do_not_depend_on_the_order():
    rows = sides_as_thumbs(pairs(), unpaired=False, seed=0).rows
    assert mismatched(rows[::-1], seed=0) == mismatched(rows, seed=0)[::-1]


@pytest.mark.parametrize("rows", [[], [Tokens((1,), (2,)), Tokens((1,), (3,))]])
def test_less_than_two_prompts_are_refused(rows):
    with pytest.raises(SpecError, match=r"answer [01] prompt\(s\), .*give responses to two or more"):
        mismatched(rows, seed=0)
