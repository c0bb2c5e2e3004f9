import os
import random
import subprocess
import sys
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from statistics import mean, pstdev

import pytest

from alpacafarm.world.annotators import Annotator, annotate, pool
from alpacafarm.world.demonstrations import Quality, demonstrate
from alpacafarm.world.gold import GOLD, preference
from alpacafarm.world.tasks import Task, parse, tasks

Pair = tuple[Task, str, str]
IMPARTIAL = Annotator(
    "impartial", GOLD, extras=0.0, cheer=0.0, length=0.0, position=0.0, noise=0.0, temperature=1e-6
)
N = 6000


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    """Distinct pairs of SFT demonstrations."""
    rng = random.Random(0)
    drawn = (
        (task, *(demonstrate(task, rng, Quality.SFT) for _ in range(2))) for task in tasks("preference", N, 0)
    )
    return [(task, a, b) for task, a, b in drawn if a != b]


def agreement(pairs: list[Pair], annotators: tuple[Annotator, ...], flip_probability: float) -> float:
    """Share of the pairs that gold does not tie on which the vote is gold's."""
    agree = [
        annotate(annotators, task, a, b, seed=0, flip_probability=flip_probability).preference == truth
        for task, a, b in pairs
        if (truth := preference(task, a, b)) != 1.5
    ]
    return mean(agree)


@pytest.mark.parametrize("kind", ["sim", "human"])
def test_swapping_the_outputs_mirrors_the_vote(pairs, kind):
    annotators = pool(kind, seed=0)
    for task, a, b in pairs[:1000]:
        vote = annotate(annotators, task, a, b, seed=0, flip_probability=0.25)
        swapped = annotate(annotators, task, b, a, seed=0, flip_probability=0.25)
        assert swapped == replace(vote, preference=3 - vote.preference)


def test_identical_outputs_tie():
    task = tasks("sft", 1, seed=0)[0]
    vote = annotate(pool("sim", 0), task, "Same.", "Same.", seed=0, flip_probability=1.0)
    assert (vote.preference, vote.flipped) == (1.5, False)


def test_flips_reverse_the_vote_at_their_rate(pairs):
    annotators = pool("sim", seed=0)
    flipped = 0
    for task, a, b in pairs:
        vote = annotate(annotators, task, a, b, seed=0, flip_probability=0.25)
        honest = annotate(annotators, task, a, b, seed=0, flip_probability=0.0)
        assert not honest.flipped
        assert vote.annotator == honest.annotator
        assert vote.preference == (3 - honest.preference if vote.flipped else honest.preference)
        flipped += vote.flipped
    n = len(pairs)
    assert abs(flipped / n - 0.25) < 3 * (0.25 * 0.75 / n) ** 0.5


def test_votes_on_pairs_of_one_instruction_are_independent():
    # The pairs are equally good, so each vote is a fair coin; a seed by instruction alone would repeat it.
    task = parse("Name two fruits.", "")
    assert task is not None
    fruits = ("apple", "banana", "pear", "plum", "grape", "mango")
    lists = [f"Some fruits are {x}, {y}." for x in fruits for y in fruits if x != y]
    pairs = [(a, b) for i, a in enumerate(lists) for b in lists[:i]]
    annotators = pool("sim", 0)
    votes = [annotate(annotators, task, a, b, seed=0, flip_probability=0.25) for a, b in pairs]
    n = len(pairs)
    assert abs(mean(vote.preference for vote in votes) - 1.5) < 3 * 0.5 / n**0.5
    assert abs(mean(vote.flipped for vote in votes) - 0.25) < 3 * (0.25 * 0.75 / n) ** 0.5
    assert len({vote.annotator for vote in votes}) == 13
    # Neighbours (pairs that share an output) agree no oftener than chance.
    alike = [x.preference == y.preference for x, y in pairwise(votes)]
    assert abs(mean(alike) - 0.5) < 4 * 0.5 / n**0.5


def test_other_seeds_give_other_votes(pairs):
    annotators = pool("sim", 0)
    votes, others = (
        [annotate(annotators, *pair, seed=seed, flip_probability=0.25) for pair in pairs[:300]]
        for seed in (0, 1)
    )
    # Chance: 0.25^2 + 0.75^2 = 0.625 and 1 / 13.
    assert 0.5 < mean(x.flipped == y.flipped for x, y in zip(votes, others, strict=True)) < 0.75
    assert mean(x.annotator == y.annotator for x, y in zip(votes, others, strict=True)) < 0.2


def test_one_person_asked_with_another_seed_may_vote_otherwise(pairs):
    someone = pool("sim", 0)[:1]
    votes, others = (
        [annotate(someone, *pair, seed=seed, flip_probability=0.5) for pair in pairs[:300]] for seed in (0, 1)
    )
    assert 0.35 < mean(x.preference == y.preference for x, y in zip(votes, others, strict=True)) < 0.65


def test_everyone_votes_equally_often(pairs):
    annotators = pool("sim", 0)
    names = [annotate(annotators, *pair, seed=0, flip_probability=0.0).annotator for pair in pairs]
    n = len(names)
    for annotator in annotators:
        assert abs(names.count(annotator.name) / n - 1 / 13) < 4 * (1 / 13 / n) ** 0.5


def test_an_impartial_annotator_agrees_with_gold_where_taste_plays_no_part():
    task = parse("Name two fruits.", "")
    assert task is not None
    good, bad = "Some fruits are apple, pear.", "Some fruits are apple."
    assert annotate([IMPARTIAL], task, good, bad, seed=0, flip_probability=0.0).preference == 1
    assert annotate([IMPARTIAL], task, good, bad, seed=0, flip_probability=1.0).preference == 2


def test_position_bias_acts_on_the_order_shown_not_on_the_order_given():
    # Someone who always takes the first shown is a coin, whichever output is named first.
    biased = replace(IMPARTIAL, position=100.0)
    drawn = tasks("sft", 2000, seed=0)
    votes = [
        annotate([biased], task, "An answer.", "No answer.", seed=0, flip_probability=0.0) for task in drawn
    ]
    # Texts repeat, and a repeated pair gets the same vote: count each once.
    distinct = {
        (task.instruction, task.input): vote.preference for task, vote in zip(drawn, votes, strict=True)
    }
    assert abs(mean(distinct.values()) - 1.5) < 4 * 0.5 / len(distinct) ** 0.5


def test_flipped_simulated_labels_agree_with_gold_about_two_times_in_three(pairs):
    assert 0.65 < agreement(pairs, pool("sim", 0), flip_probability=0.25) < 0.72


def test_people_are_more_varied_and_agree_less_with_gold(pairs):
    sim, human = pool("sim", 0), pool("human", 0)
    assert (len(sim), len(human)) == (13, 16)
    assert not {a.name for a in sim} & {a.name for a in human}
    spread = {
        annotators: mean(
            pstdev([asdict(a.weights)[name] for a in annotators]) / weight
            for name, weight in asdict(GOLD).items()
        )
        for annotators in (sim, human)
    }
    assert spread[human] > 1.3 * spread[sim]
    assert agreement(pairs, human, 0.0) < agreement(pairs, sim, 0.0) - 0.01


def test_the_pool_of_evaluation_is_the_simulated_one():
    assert pool("eval", 3) == pool("sim", 3) != pool("sim", 4)


def test_votes_are_the_same_in_another_process():
    program = (
        "from alpacafarm.world.annotators import annotate, pool\n"
        "from alpacafarm.world.tasks import tasks\n"
        "for task in tasks('eval', 20, seed=0) + tasks('sft', 20, seed=0):\n"
        "    for kind in ('sim', 'human'):\n"
        "        print(task, annotate(pool(kind, 0), task, 'Yes.', 'No.', seed=0, flip_probability=0.25))\n"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(outputs) == 1
    assert "Vote(" in outputs.pop()
