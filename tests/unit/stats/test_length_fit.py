"""Derivatives of the fit against differences of its likelihood."""

from dataclasses import replace

import numpy as np
import pytest

from alpacafarm.stats.length_fit import Data, _Seen, fit

M, N = 3, 40
STEP = 1e-5


@pytest.fixture(params=["none", "given", "estimated"])
def seen(request):
    rng = np.random.default_rng(0)
    features = [np.ones((M, N)), *([rng.normal(size=(M, N))] if request.param == "given" else [])]
    there = (rng.random((M, N)) < 0.95).astype(float)
    data = Data(
        won_MN=rng.random((M, N)),
        weight_MN=there * (rng.random((M, N)) < 0.9),
        there_MN=there,
        feature_MNK=np.stack([*features, np.tanh(rng.normal(size=(M, N)))], axis=-1),
        difficulty=request.param,
    )
    return _Seen(data, rng.normal(size=M * (len(features) + 1) + 2))


def slopes(function, at):
    """Central differences, by parameter."""
    moves = STEP * np.eye(at.size)
    return np.array([(function(at + move) - function(at - move)) / (2 * STEP) for move in moves])


def test_scores_add_up_to_the_slope_of_the_likelihood(seen):
    expected = slopes(lambda theta: _Seen(seen.data, theta).log_likelihood, seen.theta_P)
    np.testing.assert_allclose(seen.scores().sum(1), expected, atol=1e-7)


def test_information_is_minus_the_curvature_of_the_likelihood(seen):
    expected = -slopes(lambda theta: _Seen(seen.data, theta).scores().sum(1), seen.theta_P)
    np.testing.assert_allclose(seen.information(), expected, atol=1e-7)


def test_slopes_of_the_rates_are_those_of_the_rates(seen):
    expected = slopes(lambda theta: _Seen(seen.data, theta).rates()[0], seen.theta_P).T
    np.testing.assert_allclose(seen.rates()[1], expected, atol=1e-8)


def test_the_fit_is_a_mode_from_wherever_it_starts(seen):
    one = fit(seen.data, common_sd=1.0, own_sd=0.5)
    other = fit(seen.data, common_sd=1.0, own_sd=0.5, start=seen.theta_P)
    np.testing.assert_allclose(one.rate_M, other.rate_M, atol=1e-6)


@pytest.mark.parametrize("seen", ["estimated"], indirect=True)
def test_a_difficulty_of_deviation_nothing_leaves_the_plain_likelihood(seen):
    theta = seen.theta_P.copy()
    theta[-1] = 0
    plain = _Seen(replace(seen.data, difficulty="none"), theta)
    assert _Seen(seen.data, theta).log_likelihood == pytest.approx(plain.log_likelihood)
