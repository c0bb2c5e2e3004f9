"""The analysis of annotators against alpaca-eval's own, and on votes that can be counted by hand."""

import random

import pytest

from alpacafarm.stats.annotators import (
    JudgedTexts,
    agreement,
    bias,
    prefers_first,
    prefers_lists,
    prefers_longer,
    variance,
)
from alpacafarm.stats.habits import has_list


def crossed(seed, *, pairs=80, votes=4, right=0.7):
    """`votes` noisy verdicts on each pair, most of them for its better side."""
    rng = random.Random(seed)
    found = {}
    for i in range(pairs):
        better = 1 + i % 2
        found[i] = [better if rng.random() < right else 3 - better for _ in range(votes)]
    return found


def text(i, side):
    rng = random.Random(f"{i}{side}")
    lines = [
        rng.choice(["- one", "2. two", "b) three", "plain", "5 apples"]) for _ in range(rng.randint(1, 3))
    ]
    return "\n".join(lines) + "x" * rng.randint(0, 80)


def frame(votes):
    import pandas as pd

    rows = [
        {"instruction": f"q{i}", "output_1": text(i, 1), "output_2": text(i, 2), "preference": float(vote)}
        for i, found in votes.items()
        for vote in found
    ]
    frame = pd.DataFrame(rows).assign(generator="g", annotator="a")
    return frame.assign(index=frame.groupby("instruction").cumcount())


@pytest.fixture(scope="module")
def analyzer():
    analyze = pytest.importorskip("alpaca_eval.analyze")
    gold = frame(crossed(0, votes=3, right=0.8))
    return analyze.Analyzer(gold_crossannotations=gold, gold_annotations=gold, n_annotators=3)


def test_agreement_is_that_of_alpaca_eval(analyzer):
    votes, gold = crossed(1), crossed(0, votes=3, right=0.8)
    expected = analyzer.agreement_of_annotations(frame(votes), n_majority_vote_1=1)
    found = agreement(votes, gold)
    assert found.score == pytest.approx(expected["score"])
    assert found.n_pairs == expected["counts"]


def test_bias_and_variance_are_those_of_alpaca_eval(analyzer):
    votes, gold = crossed(2, votes=3), crossed(0, votes=3, right=0.8)
    assert bias(votes, gold) == pytest.approx(analyzer.estimate_bias(frame(votes)))
    even = crossed(3, votes=4)  # one against three: no majority is tied
    assert variance(even) == pytest.approx(analyzer.estimate_variance(frame(even)))


def test_agreement_of_probabilities_is_that_of_alpaca_eval(analyzer):
    rng = random.Random(4)
    votes = {i: [rng.uniform(1, 2)] for i in range(80)}
    expected = analyzer.agreement_of_annotations(frame(votes), n_majority_vote_1=1)
    found = agreement(votes, crossed(0, votes=3, right=0.8))
    assert found.score == pytest.approx(expected["score"])
    assert found.standard_error == pytest.approx(expected["sem_samples"])


def test_preferences_for_length_and_lists_are_those_of_alpaca_eval(analyzer):
    rng = random.Random(5)
    votes = {i: [rng.choice([1, 2, 1.5])] for i in range(200)}
    pairs = [JudgedTexts(text(i, 1), text(i, 2), vote) for i, (vote,) in votes.items()]
    length = analyzer.get_length_biases(frame(votes))
    assert prefers_longer(pairs) == pytest.approx(length["probability_prefer_longer"])
    lists = analyzer.get_list_biases(frame(votes))
    assert prefers_lists(pairs) == pytest.approx(lists["probability_prefer_list"])


def test_lists_are_those_of_alpaca_eval():
    utils = pytest.importorskip("alpaca_eval.utils")
    texts = [text(i, side) for i in range(100) for side in (1, 2)] + ["", "*bold*", "1.5 litres", "A. Smith"]
    assert [has_list(t) for t in texts] == [utils.contains_list(t) for t in texts]


def test_each_of_tied_verdicts_counts_in_equal_parts():
    found = agreement({"p": [1]}, {"p": [1, 2]})
    assert found.score == 0.5
    assert agreement({"p": [1.5]}, {"p": [2, 2, 1]}).score == 0.5
    assert agreement({"p": [0]}, {"p": [1.5]}).score == 1


def test_an_annotator_without_noise_has_no_variance_and_only_bias():
    steady = {i: [1, 1, 1] for i in range(10)}
    gold = {i: [1 + (i < 3)] for i in range(10)}
    assert variance(steady) == 0
    assert bias(steady, gold) == pytest.approx(0.3)


def test_what_was_not_judged_twice_or_by_both_has_no_number():
    assert variance({"p": [1], "q": [1, 2]}) is None
    assert agreement({"p": [1]}, {"q": [1]}) is None
    assert bias({}, {}) is None
    assert prefers_longer([JudgedTexts("a" * 20, "a" * 45, 2)]) is None  # 25 characters are no difference
    assert prefers_lists([JudgedTexts("- a", "- b", 2)]) is None
    assert prefers_first({}) is None


def test_a_place_that_is_always_preferred_shows():
    assert prefers_first({1: [1, 1], 2: [1]}) == 1
    assert prefers_first({1: [1, 2]}) == 0.5
