"""Agreement against published examples and closed forms."""

import pytest

from alpacafarm.stats.agreement import cohen_kappa, krippendorff_alpha, of_two, pairwise_agreement


def test_kappa_of_a_textbook_table():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: observed 0.7, expected 0.5
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    assert cohen_kappa(first, second) == pytest.approx(0.4)


def test_alpha_of_krippendorffs_own_example():
    """Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C: four observers, missing
    data, nominal: 0.743."""
    rows = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    units = [[v for v in column if v != "."] for column in zip(*(row.split() for row in rows), strict=True)]
    assert krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)


def test_alpha_of_two_observers_of_ten_units():
    """The same, section A: binary data of two observers: 0.095."""
    units = list(zip("0100000000", "1110010010", strict=True))
    assert krippendorff_alpha(units) == pytest.approx(0.095, abs=5e-4)


def test_equal_labels_agree_perfectly_and_chance_gives_nothing():
    assert cohen_kappa("1212", "1212") == 1
    assert krippendorff_alpha(["11", "22", "tt"]) == 1
    assert cohen_kappa("1122", "1212") == 0
    assert cohen_kappa("1122", "2211") == -1


@pytest.mark.parametrize("units", [[], ["1", "2"], ["11", "11"]])
def test_alpha_says_nothing_without_differing_labels(units):
    assert krippendorff_alpha(units) is None


def test_kappa_says_nothing_where_both_always_say_the_same():
    assert cohen_kappa("111", "111") is None
    assert cohen_kappa("", "") is None
    assert cohen_kappa("111", "121") == 0
    with pytest.raises(ValueError, match="2 and 1 labels cannot be paired"):
        cohen_kappa("12", "1")


def test_pairwise_agreement_weighs_units_alike():
    assert pairwise_agreement(["11", "112", "1"]) == pytest.approx((1 + 1 / 3) / 2)
    assert pairwise_agreement(["1", ""]) is None


def test_two_people_are_compared_where_both_said_something():
    labels = {"a": {"x": "1", "y": "1"}, "b": {"x": "2", "z": "2"}, "c": {"x": "2", "y": "2", "z": "1"}}
    assert of_two(labels, "x", "y") == (2, 1.0)
    assert of_two(labels, "y", "z") == (1, 0.0)
    assert of_two(labels, "y", "nobody") == (0, None)
