import math
import random

import pytest

from alpacafarm.stats.calibration import expected_calibration_error, preference_probability


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


@pytest.fixture
def rows():
    """Probabilities and labels of a model that knows nothing, ties and soft labels among them."""
    rng = random.Random(0)
    return [rng.random() for _ in range(57)], [rng.choice([0, 0.3, 0.5, 1]) for _ in range(57)]


@pytest.mark.parametrize("lead", [-30.0, -1.0, 0.0, 0.5, 20.0])
def test_probability_is_the_sigmoid_of_the_lead(lead):
    assert preference_probability(3.0, 3.0 + lead) == pytest.approx(sigmoid(lead))
    assert preference_probability(3.0 + lead, 3.0) == pytest.approx(1 - sigmoid(lead), abs=1e-12)


def test_probability_of_a_hopeless_lead_is_a_number():
    assert (preference_probability(0, 5000), preference_probability(5000, 0)) == (1, 0)


def test_one_bin_is_the_difference_of_the_means(rows):
    sure = [max(p, 1 - p) for p in rows[0]]
    right = [y if p > 0.5 else 1 - y for p, y in zip(*rows, strict=True)]
    expected = abs(sum(right) / 57 - sum(sure) / 57)
    assert expected_calibration_error(*rows, bins=1) == pytest.approx(expected)


def test_a_bin_for_each_row_is_the_mean_distance(rows):
    expected = sum(abs(p - y) for p, y in zip(*rows, strict=True)) / 57
    assert expected_calibration_error(*rows, bins=57) == pytest.approx(expected)
    assert expected_calibration_error(*rows, bins=1000) == pytest.approx(expected)


def test_bins_weigh_as_much_as_they_hold():
    # Two at 0.6, of which none is right; three at 0.9, all right: (2 * 0.6 + 3 * 0.1) / 5
    probability, label = [0.6, 0.4, 0.9, 0.9, 0.1], [0, 1, 1, 1, 0]
    assert expected_calibration_error(probability, label, bins=2) == pytest.approx(0.3)


@pytest.mark.parametrize("bins", [1, 3, 10])
def test_a_soft_label_that_is_the_probability_is_calibrated(rows, bins):
    assert expected_calibration_error(rows[0], rows[0], bins=bins) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("bins", [1, 4, 20])
def test_equal_confidences_are_compared_as_one_whatever_the_bins(bins):
    """Three of four are right at 0.75, in an order that would put the wrong ones into bins of their own."""
    probability, label = [0.75] * 20, [0] * 5 + [1] * 15
    assert expected_calibration_error(probability, label, bins=bins) == pytest.approx(0)
    assert expected_calibration_error([0.9] * 20, label, bins=bins) == pytest.approx(0.15)


@pytest.mark.parametrize("bins", [1, 2, 6, 10])
def test_neither_the_order_of_rows_nor_of_outputs_matters(rows, bins):
    probability, label = [*rows[0], 0.5, 0.5], [*rows[1], 1, 0.5]
    found = expected_calibration_error(probability, label, bins=bins)
    order = random.Random(1).sample(range(59), 59)
    shuffled = [probability[i] for i in order], [label[i] for i in order]
    turned = [1 - p if i % 3 else p for i, p in enumerate(probability)]
    turned_labels = [1 - y if i % 3 else y for i, y in enumerate(label)]
    assert expected_calibration_error(*shuffled, bins=bins) == pytest.approx(found)
    assert expected_calibration_error(turned, turned_labels, bins=bins) == pytest.approx(found)


def test_a_model_that_cannot_decide_is_calibrated():
    assert expected_calibration_error([0.5, 0.5, 0.5], [1, 1, 0], bins=3) == 0


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_labels_drawn_from_the_model_show_how_its_scores_are_stretched(temperature):
    """Scores twice too large are too sure by sigmoid(2x) - sigmoid(x) on average, and the reverse."""
    rng = random.Random(0)
    leads = [abs(rng.gauss(0, 1.5)) for _ in range(40_000)]
    label = [float(rng.random() < sigmoid(lead)) for lead in leads]
    told = [sigmoid(lead / temperature) for lead in leads]
    expected = sum(abs(p - sigmoid(lead)) for p, lead in zip(told, leads, strict=True)) / len(leads)
    # 4,000 rows a bin: the noise of a bin is 0.5 / sqrt(4000) at most
    assert expected_calibration_error(told, label, bins=10) == pytest.approx(expected, abs=0.008)


def test_rows_and_labels_must_be_there_and_match():
    with pytest.raises(ValueError, match="no rows"):
        expected_calibration_error([], [], bins=10)
    with pytest.raises(ValueError, match="shorter"):
        expected_calibration_error([0.2, 0.4], [1.0], bins=10)
