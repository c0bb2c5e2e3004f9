import pytest

from alpacafarm.stats.tournament import matches, tournament


def rank_preferences(strengths: list[float]) -> dict[tuple[int, int], float | None]:
    """What a judge says who always prefers the stronger one."""
    return {
        (i, j): 1.5 if strengths[i] == strengths[j] else 1.0 + (strengths[j] > strengths[i])
        for i, j in matches(len(strengths))
    }


@pytest.mark.parametrize("size", [2, 3, 4, 7])
def test_every_two_meet_once(size):
    assert sorted(tuple(sorted(m)) for m in matches(size)) == [
        (i, j) for i in range(size) for j in range(i + 1, size)
    ]


@pytest.mark.parametrize("size", [3, 4, 5, 8])
def test_each_is_first_as_often_as_second_or_once_more(size):
    for i in range(size):
        first = sum(m[0] == i for m in matches(size))
        second = sum(m[1] == i for m in matches(size))
        assert abs(first - second) <= 1


def test_scores_are_shares_of_wins_about_zero():
    assert tournament(4, rank_preferences([3.0, 1.0, 2.0, 0.0])) == pytest.approx(
        [0.5, 1 / 3 - 0.5, 2 / 3 - 0.5, -0.5]
    )


def test_scores_of_a_group_add_up_to_zero_and_follow_its_order():
    strengths = [2.0, 0.5, 0.5, 3.0, -1.0]
    scores = tournament(5, rank_preferences(strengths))
    assert sum(scores) == pytest.approx(0.0)
    order = [3, 0, 4, 2, 1]
    assert tournament(5, rank_preferences([strengths[i] for i in order])) == pytest.approx(
        [scores[i] for i in order]
    )


def test_a_judge_who_likes_a_place_separates_responses_less_than_one_who_looks():
    for place in (1.0, 2.0):
        scores = tournament(5, dict.fromkeys(matches(5), place))
        assert max(map(abs, scores)) <= 0.25 + 1e-12


def test_a_soft_preference_is_a_share():
    assert tournament(2, {(0, 1): 1.2}) == pytest.approx([0.3, -0.3])


def test_a_failed_verdict_counts_for_neither():
    assert tournament(3, {(0, 1): 1.0, (0, 2): None, (1, 2): None}) == [0.5, -0.5, 0.0]
