import statistics

import pytest
import torch

from alpacafarm.stats.ensemble import aligning_shifts, combined

WAYS = [("mean", None), ("min", None), ("mean_minus_std", 0.7)]
EVERY_WAY = pytest.mark.parametrize(("combine", "std_coef"), WAYS)


@pytest.fixture
def scores() -> list[list[float]]:
    """Of four members on six responses."""
    torch.manual_seed(0)
    return torch.randn(4, 6, dtype=torch.float64).tolist()


def test_combinations_are_those_of_their_formulas(scores):
    score_MB = torch.tensor(scores, dtype=torch.float64)
    variance_B = (score_MB - score_MB.mean(0)).square().mean(0)
    expected = {
        "mean": score_MB.mean(0),
        "min": score_MB.amin(0),
        "mean_minus_std": score_MB.mean(0) - 0.7 * variance_B.sqrt(),
    }
    for combine, std_coef in WAYS:
        assert combined(scores, combine=combine, std_coef=std_coef) == pytest.approx(
            expected[combine].tolist()
        )


@EVERY_WAY
def test_equal_members_give_the_member(scores, combine, std_coef):
    found = combined([scores[0]] * 3, combine=combine, std_coef=std_coef)
    assert found == pytest.approx(scores[0])


@EVERY_WAY
def test_members_have_no_order_and_a_constant_goes_through(scores, combine, std_coef):
    found = combined(scores, combine=combine, std_coef=std_coef)
    assert combined(scores[::-1], combine=combine, std_coef=std_coef) == pytest.approx(found)
    raised = [[score + 3 for score in of_member] for of_member in scores]
    assert combined(raised, combine=combine, std_coef=std_coef) == pytest.approx([x + 3 for x in found])


def test_doubt_never_raises_a_score(scores):
    mean, least = combined(scores, combine="mean"), combined(scores, combine="min")
    unsure = combined(scores, combine="mean_minus_std", std_coef=1.0)
    assert all(a < b for a, b in zip(least, mean, strict=True))
    assert all(a < b for a, b in zip(unsure, mean, strict=True))


def test_without_a_coefficient_the_deviation_costs_nothing(scores):
    assert combined(scores, combine="mean_minus_std", std_coef=0.0) == combined(scores, combine="mean")


def test_of_two_members_one_deviation_below_the_mean_is_the_lower(scores):
    found = combined(scores[:2], combine="mean_minus_std", std_coef=1.0)
    assert found == pytest.approx(combined(scores[:2], combine="min"))


def test_shifts_bring_the_means_together_and_leave_their_mean(scores):
    means = [statistics.fmean(of_member) for of_member in scores]
    shifts = aligning_shifts(means)
    assert [m + s for m, s in zip(means, shifts, strict=True)] == pytest.approx([statistics.fmean(means)] * 4)
    assert sum(shifts) == pytest.approx(0)


def test_members_that_saw_different_responses_cannot_be_combined(scores):
    with pytest.raises(ValueError, match="shorter"):
        combined([scores[0], scores[1][:-1]], combine="mean")
