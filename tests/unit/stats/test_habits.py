import math
import subprocess
import sys
from dataclasses import replace

import pytest

from alpacafarm.stats.habits import (
    NO_HABITS,
    abstains,
    asked_share,
    biased,
    chance,
    drawn,
    habitual,
    has_list,
    lean,
    ties,
)

N = 6000
PAIRS = [("instruction", "", f"answer {i}", f"other {i}") for i in range(N)]  # of one instruction, sorted
LUCK = [chance(0, "ann", texts) for texts in PAIRS]
EVERYTHING = replace(NO_HABITS, flip=0.2, position=0.7, length=0.5, style=0.3, drift=0.1)


def within_binomial_noise(count, n, p):
    return abs(count - n * p) < 4 * math.sqrt(n * p * (1 - p))


def judged(told, habits, *, place=0.0):
    """The preferences of all pairs, where the judge says `told` of each (or of every one)."""
    told = told if isinstance(told, list) else [told] * N
    return [
        habitual(t, pair[2], pair[3], habits=habits, luck=luck, place=place)
        for t, pair, luck in zip(told, PAIRS, LUCK, strict=True)
    ]


@pytest.mark.parametrize("told", [1, 2, 1.0, 2.0, 1.5, 1.1, 1 + 1 / 3])
def test_without_habits_a_verdict_stays_bit_for_bit(told):
    assert all(found is told for found in judged(told, NO_HABITS)[:100])


@pytest.mark.parametrize("p", [0.05, 0.25, 0.5, 0.9])
def test_flips_leave_an_agreement_of_one_minus_p(p):
    gold = [1 + i % 2 for i in range(N)]
    found = judged(gold, replace(NO_HABITS, flip=p))
    agreements = sum(a == b for a, b in zip(found, gold, strict=True))
    assert within_binomial_noise(agreements, N, 1 - p)


def test_a_flipped_probability_is_mirrored_and_a_tie_stays_one():
    always = replace(NO_HABITS, flip=1)
    assert judged(1.25, always)[:3] == [1.75] * 3
    assert judged(1.5, always)[:3] == [1.5] * 3


def test_drift_moves_the_flip_probability_linearly_from_the_first_pair_to_the_last():
    habits = replace(NO_HABITS, flip=0.1, drift=0.4)
    for place in 0, 0.5, 1:
        flipped = judged(1, habits, place=place).count(2)
        assert within_binomial_noise(flipped, N, 0.1 + 0.4 * place)


@pytest.mark.parametrize("told", [1, 2])
@pytest.mark.parametrize("towards_2", [-3, -0.5, 0.2, 1.0])
def test_a_decision_against_the_lean_is_overturned_as_often_as_said(told, towards_2):
    n_other = sum(biased(told, towards_2, luck.overturn) != told for luck in LUCK)
    if (told == 2) == (towards_2 > 0):
        assert n_other == 0
    else:
        assert within_binomial_noise(n_other, N, math.tanh(abs(towards_2) / 2))


@pytest.mark.parametrize("towards_2", [-2.0, 0.5, 1.0])
def test_fair_coins_come_out_with_the_lean_as_log_odds(towards_2):
    coins = [1 + (chance(1, "coin", texts).flip < 0.5) for texts in PAIRS]
    found = [biased(coin, towards_2, luck.overturn) for coin, luck in zip(coins, LUCK, strict=True)]
    assert within_binomial_noise(found.count(2), N, 1 / (1 + math.exp(-towards_2)))


def test_a_probability_is_shifted_in_its_logit_and_stays_a_probability():
    for p in 0.03, 0.5, 0.8:
        shifted = biased(1 + p, 0.9, 0.0) - 1
        assert math.log(shifted / (1 - shifted)) == pytest.approx(math.log(p / (1 - p)) + 0.9)
    assert biased(1.5, 2000.0, 0.0) == 2
    assert biased(1.5, -2000.0, 0.0) == 1


def test_the_output_shown_first_is_preferred_and_each_is_first_half_of_the_time():
    coins = [1 + (chance(1, "coin", texts).flip < 0.5) for texts in PAIRS]
    found = judged(coins, replace(NO_HABITS, position=1.0))
    first = [1 if luck.order < 0.5 else 2 for luck in LUCK]
    n_first = sum(a == b for a, b in zip(found, first, strict=True))
    assert within_binomial_noise(n_first, N, 1 / (1 + math.exp(-1)))
    assert within_binomial_noise(first.count(1), N, 0.5)
    assert within_binomial_noise(found.count(1), N, 0.5)


def test_a_lean_adds_up_from_order_length_and_lists():
    habits = replace(NO_HABITS, position=0.1, length=2.0, style=0.5)
    long, short = "- item\n" + "x" * 92, "x" * 49  # 99 and 49 characters: twice as long, but for one each
    assert lean(habits, short, long, first_shown=True) == pytest.approx(-0.1 + 2 * math.log(2) + 0.5)
    assert lean(habits, short, long, first_shown=False) == pytest.approx(0.1 + 2 * math.log(2) + 0.5)
    assert lean(habits, "", "", first_shown=True) == -0.1


@pytest.mark.parametrize("told", [1, 2, 1.5, 1.2])
def test_swapping_the_outputs_mirrors_the_preference_exactly(told):
    for pair, luck in list(zip(PAIRS, LUCK, strict=True))[:500]:
        one = habitual(told, pair[2], pair[3], habits=EVERYTHING, luck=luck, place=0.3)
        two = habitual(3 - told, pair[3], pair[2], habits=EVERYTHING, luck=luck, place=0.3)
        assert one == 3 - two


def test_equal_outputs_are_left_alone():
    always = replace(EVERYTHING, flip=1, drift=0)
    assert habitual(1.5, "same", "same", habits=always, luck=LUCK[0], place=0) == 1.5


def test_abstentions_and_ties_are_as_frequent_as_said_and_independent():
    habits = replace(NO_HABITS, tie=0.3, abstain=0.1)
    gone = [abstains(habits, luck) for luck in LUCK]
    tied = [ties(habits, luck) for luck in LUCK]
    assert within_binomial_noise(sum(gone), N, 0.1)
    assert within_binomial_noise(sum(tied), N, 0.3)
    assert within_binomial_noise(sum(a and b for a, b in zip(gone, tied, strict=True)), N, 0.03)
    assert asked_share(habits) == pytest.approx(0.63)


def test_annotators_are_drawn_by_weight_whatever_their_order_and_scale():
    weights = {"a": 1.0, "b": 2.0, "c": 1.0}
    names = [drawn(weights, 0, texts) for texts in PAIRS]
    for name, share in [("a", 0.25), ("b", 0.5), ("c", 0.25)]:
        assert within_binomial_noise(names.count(name), N, share)
    assert names == [drawn({"c": 4.0, "b": 8.0, "a": 4.0}, 0, texts) for texts in PAIRS]


def test_pairs_of_one_instruction_annotators_and_seeds_are_independent():
    def flipped(lucks):
        return [luck.flip < 0.25 for luck in lucks]

    base = flipped(LUCK)
    others = [
        [chance(0, "bee", texts) for texts in PAIRS],
        [chance(1, "ann", texts) for texts in PAIRS],
        LUCK[1:] + LUCK[:1],
    ]
    for other in others:
        both = sum(a and b for a, b in zip(base, flipped(other), strict=True))
        assert within_binomial_noise(both, N, 1 / 16)


def test_chance_is_the_same_in_a_process_with_another_hash_salt_and_on_any_machine():
    program = (
        "from alpacafarm.stats.habits import chance, drawn; texts = ('i', 'n', 'a', 'b');"
        "print(chance(7, 'ann', texts), drawn({'x': 1, 'y': 3}, 7, texts))"
    )
    for salt in "0", "1":
        run = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": salt},
            capture_output=True,
            text=True,
            check=True,
        )
        assert run.stdout.strip() == GOLDEN


# The head of SHA-256 seeds a Mersenne twister: both are defined bit for bit.
GOLDEN = (
    "Chance(order=0.9582001434460473, overturn=0.27187743243183293, flip=0.9637563451122756, "
    "tie=0.9523781194673611, abstain=0.3746390768239337) y"
)


@pytest.mark.parametrize(
    "text", ["- one\n- two", "Steps:\n1. go", "  * item", "a) first", "• x", "text\n2) more"]
)
def test_lists_are_found(text):
    assert has_list(text)


@pytest.mark.parametrize(
    "text", ["", "plain text", "well-known - yes", "It is 3.5 metres", "a - b", "\n---\n"]
)
def test_other_text_has_no_list(text):
    assert not has_list(text)
