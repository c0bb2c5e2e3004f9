"""The length-controlled win rate on judges whose mind is known."""

import math

import numpy as np
import pytest

from alpacafarm.stats.length_control import Rated, length_controlled, published

N = 800


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lengths(rng, n=N):
    return rng.lognormal(6, 0.6, n)


def verdicts(rng, logit):
    return (rng.random(len(logit)) < sigmoid(logit)).astype(float)


def one(won, longer, difficulty=None):
    (found,) = length_controlled([Rated(won, longer)], difficulty)
    return found


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("filler", [100, 300, "some", "half"])
def test_padding_changes_nothing_where_the_judge_ignores_length(seed, filler):
    rng = np.random.default_rng(seed)
    longer, won = lengths(rng) - lengths(rng), verdicts(rng, np.full(N, 0.4))
    padding = {"some": rng.integers(0, 1500, N), "half": np.where(rng.random(N) < 0.5, 800, 0)}
    before = one(won, longer)
    after = one(won, longer - padding.get(filler, filler))
    assert before.win_rate == pytest.approx(100 * won.mean(), abs=0.2)
    # one seed of the five has verdicts that go with length by chance, and needs most of the error
    assert after.win_rate == pytest.approx(before.win_rate, abs=after.standard_error)


@pytest.mark.parametrize("seed", range(5))
def test_where_no_answer_is_as_short_as_the_baselines_the_error_says_so(seed):
    rng = np.random.default_rng(seed)
    longer, won = lengths(rng) - lengths(rng), verdicts(rng, np.full(N, 0.4))
    before, after = one(won, longer), one(won, longer - 2000)
    assert after.win_rate == pytest.approx(before.win_rate, abs=2 * after.standard_error)
    assert after.standard_error > before.standard_error


def test_padding_wins_with_a_judge_that_likes_length_and_the_control_takes_it_back():
    rng = np.random.default_rng(0)
    base, model, luck = lengths(rng), lengths(rng), rng.random(N)

    def judged(model):
        return (luck < sigmoid(0.3 + 2 * np.tanh((model - base) / 500))).astype(float)

    plain, padded = judged(model), judged(model + 400)
    assert padded.mean() > plain.mean() + 0.1
    before, after = one(plain, base - model), one(padded, base - model - 400)
    assert after.win_rate == pytest.approx(before.win_rate, abs=2 * after.standard_error)
    assert after.win_rate < 100 * padded.mean() - 8
    assert after.length_weight > 0.99
    assert after.length_coefficient < -1


def test_parameters_of_the_model_itself_are_found_again():
    rng = np.random.default_rng(1)
    n = 20_000
    difficulty = rng.normal(0, 1.5, n)
    longer = lengths(rng, n) - lengths(rng, n) - 100
    term = np.tanh(longer / longer.std(ddof=1))
    won = sigmoid(-0.7 + difficulty - 1.8 * term)  # a judge that gives probabilities: no noise at all
    found = one(won, longer, difficulty)
    assert found.length_coefficient == pytest.approx(-1.8, abs=0.01)
    assert found.win_rate == pytest.approx(100 * sigmoid(-0.7 + difficulty).mean(), abs=0.1)
    assert found.difficulty == "given"
    assert found.win_rate == pytest.approx(published(-0.7, 1.0, difficulty), abs=0.1)


def test_several_models_tell_how_difficult_the_rows_are():
    rng = np.random.default_rng(2)
    difficulty = rng.normal(0, 2, N)
    models, truth = [], []
    for bias in (-1.5, -0.5, 0.5, 1.5):
        longer = lengths(rng) - lengths(rng) - 200
        term = np.tanh(longer / longer.std(ddof=1))
        models.append(Rated(verdicts(rng, bias + difficulty - 2 * term), longer))
        truth.append(100 * sigmoid(bias + difficulty).mean())
    together = length_controlled(models)
    assert {found.difficulty for found in together} == {"estimated"}
    for found, expected in zip(together, truth, strict=True):
        assert found.win_rate == pytest.approx(expected, abs=2 * found.standard_error)


def test_standard_error_is_that_of_a_bootstrap_over_instructions():
    rng = np.random.default_rng(3)
    longer = lengths(rng, 300) - lengths(rng, 300) - 150
    won = verdicts(rng, 0.5 - 2 * np.tanh(longer / longer.std()))
    drawn = [one(won[rows], longer[rows]).win_rate for rows in rng.integers(0, 300, (200, 300))]
    # 200 draws know the deviation to 5%
    assert one(won, longer).standard_error == pytest.approx(np.std(drawn), rel=0.2)


def test_standard_error_of_models_that_estimate_the_difficulty_is_that_of_a_bootstrap():
    rng = np.random.default_rng(4)
    difficulty = rng.normal(0, 1.5, 200)
    longer = [lengths(rng, 200) - lengths(rng, 200) for _ in range(3)]
    won = [
        verdicts(rng, b + difficulty - 2 * np.tanh(x / 400)) for b, x in zip((-1, 0, 1), longer, strict=True)
    ]

    def together(rows):
        return length_controlled([Rated(y[rows], x[rows]) for y, x in zip(won, longer, strict=True)])

    drawn = [[f.win_rate for f in together(rows)] for rows in rng.integers(0, 200, (60, 200))]
    told = [found.standard_error for found in together(np.arange(200))]
    # 60 draws know the deviation to 9%
    assert told == pytest.approx(np.std(drawn, axis=0), rel=0.25)


def test_swapping_model_and_baseline_gives_the_complement():
    rng = np.random.default_rng(5)
    longer = lengths(rng) - lengths(rng) - 100
    won = verdicts(rng, 0.5 - 2 * np.tanh(longer / 400))
    found, mirrored = one(won, longer), one(1 - won, -longer)
    assert found.win_rate + mirrored.win_rate == pytest.approx(100)
    assert found.standard_error == pytest.approx(mirrored.standard_error)


def test_rows_without_a_verdict_change_nothing_but_what_is_predicted():
    rng = np.random.default_rng(6)
    longer = lengths(rng) - lengths(rng)
    won = verdicts(rng, np.full(N, 0.4))
    more = one(np.append(won, math.nan), np.append(longer, 0.0))
    # the further row moves the deviation of the lengths, which the term is scaled by, by a thousandth
    assert more.win_rate == pytest.approx(one(won, longer).win_rate, abs=0.01)


def test_equal_lengths_leave_the_win_rate_and_its_error():
    won = np.array([1.0, 0.0, 0.5, 1.0] * 5)
    found = one(won, np.zeros(20))
    assert found.win_rate == pytest.approx(62.5)
    assert found.standard_error == pytest.approx(100 * won.std(ddof=1) / math.sqrt(20))


@pytest.mark.parametrize(
    ("won", "longer", "reason"),
    [
        ([1, 0, 1], [5, 2, 9], r"3 rows with a verdict and lengths; at least 10 are required"),
        ([], [], r"0 rows"),
        ([1] * 12, range(12), r"every row is won"),
        ([0] * 12, range(12), r"every row is lost"),
        ([1, 0] * 6, [7] * 12, r"by the same length in every row"),
        ([1, 0] * 6, [math.nan] * 12, r"0 rows with a verdict and lengths"),
        ([math.nan] * 12, range(12), r"0 rows with a verdict"),
    ],
)
def test_what_cannot_be_fitted_says_why(won, longer, reason):
    (found,) = length_controlled([Rated(list(won), [float(gap) for gap in longer])])
    assert (found.win_rate, found.standard_error) == (None, None)
    assert reason in found.reason


@pytest.mark.parametrize("won", [[0.5] * 40, [1.0] * 39 + [0.0], [1.0] * 20 + [0.0] * 20])
def test_ties_and_separated_rows_have_a_finite_fit(won):
    found = one(won, [float(40 - i) for i in range(40)])
    assert 0 <= found.win_rate <= 100
    assert math.isfinite(found.standard_error)
    if set(won) == {0.5}:
        assert (found.win_rate, found.standard_error) == pytest.approx((50, 0), abs=1e-6)


def test_a_model_that_cannot_be_fitted_leaves_the_others_theirs():
    rng = np.random.default_rng(7)
    longer = lengths(rng) - lengths(rng)
    won = verdicts(rng, np.full(N, 0.4))
    alone = one(won, longer)
    first, second = length_controlled([Rated(np.ones(N), longer), Rated(won, longer)])
    assert first.win_rate is None
    assert second == alone
