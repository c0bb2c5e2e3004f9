import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from alpacafarm.world.demonstrations import Quality, compose, demonstrate
from alpacafarm.world.forms import CLOSERS, EXTRAS, OFF_TOPIC, OPENERS, RUDE, VAGUE, WEIGHTS
from alpacafarm.world.gold import GOLD, Reading, preference, read, score
from alpacafarm.world.tasks import Task, parse, tasks

FLAWLESS_READING = Reading(
    completion=1.0,
    extras=0,
    pleasantries=0,
    rude=0,
    vague=0,
    off_topic=0,
    garbled=0,
    repeated=0,
    ended=True,
    words=9,
    extra_sentences=0,
)


def task_of(instruction: str, input: str = "") -> Task:
    task = parse(instruction, input)
    assert task is not None
    return task


def tasks_of(family: str, n: int) -> list[Task]:
    found = [task for task in tasks("sft", 4000, seed=0) if task.family == family][:n]
    assert len(found) == n
    return found


def flawless(task: Task, seed: int = 0) -> str:
    return demonstrate(task, random.Random(seed), Quality.FLAWLESS)


def only_fault(number: int) -> Callable[[float], bool]:
    """A chance that strikes once, at the fault asked for in this place."""
    asked = iter(range(10_000))
    return lambda probability: next(asked) == number and probability > 0


def single_fault_variants(task: Task, seed: int) -> Iterator[str]:
    """The same answer with one fault, for each fault that may occur."""
    perfect = compose(task, random.Random(seed), lambda _: False)
    for number in range(20):
        variant = compose(task, random.Random(seed), only_fault(number))
        if variant != perfect:
            yield variant


@pytest.mark.parametrize("family", WEIGHTS)
def test_a_flawless_answer_beats_each_answer_with_one_fault(family):
    for seed, task in enumerate(tasks_of(family, 30)):
        perfect = flawless(task, seed)
        assert read(task, perfect).completion == 1
        variants = list(single_fault_variants(task, seed))
        assert len(variants) >= 6  # five faults of the surface, and at least one of the core
        for variant in variants:
            assert preference(task, perfect, variant) == 1, (task, perfect, variant)


@pytest.mark.parametrize("family", WEIGHTS)
def test_each_family_has_room_for_improvement_in_the_task_itself(family):
    rng = random.Random(0)
    drawn = tasks_of(family, 100)
    completions = [read(task, demonstrate(task, rng, Quality.SFT)).completion for task in drawn]
    assert 0.4 < sum(completions) / len(completions) < 0.95


def test_preference_is_antisymmetric_and_ties_only_equals():
    rng = random.Random(0)
    for task in tasks("preference", 500, seed=0):
        a, b = (demonstrate(task, rng, Quality.SFT) for _ in range(2))
        assert preference(task, a, b) == 3 - preference(task, b, a)
        assert preference(task, a, a) == 1.5


def test_equally_good_answers_tie():
    task = task_of("Name two fruits.")
    assert preference(task, "Some fruits are apple, pear.", "Some fruits are plum, banana.") == 1.5


@pytest.mark.parametrize(
    ("sentence", "field"),
    [
        *((s, "pleasantries") for s in (*OPENERS, *CLOSERS)),
        *((s, "rude") for s in RUDE),
        *((s, "vague") for s in VAGUE),
        *((s, "off_topic") for s in OFF_TOPIC),
        ("Banana lives the of.", "garbled"),
    ],
)
def test_each_sentence_is_counted_as_what_it_is(sentence, field):
    task = task_of("Name two fruits.")
    answer = "Some fruits are apple, pear."
    expected = replace(read(task, answer), words=5 + len(sentence.split()), **{field: 1})
    assert read(task, f"{answer} {sentence}") == expected
    assert read(task, f"{sentence} {answer}") == expected


def test_an_extra_sentence_counts_in_its_own_family_and_is_off_topic_in_others():
    rng = random.Random(0)
    for task in tasks("sft", 200, seed=0):
        for family, extras in EXTRAS.items():
            for extra in extras:
                reading = read(task, f"{rng.choice(RUDE)} {extra}")
                assert (reading.extras, reading.off_topic) == ((1, 0) if family == task.family else (0, 1))


def test_a_repeated_sentence_earns_nothing_and_costs():
    task = task_of("How do I make tea?")
    answer = "First, boil the water. Then, fill the cup. Finally, add the tea. Take your time with it."
    again = read(task, f"{answer} Take your time with it.")
    assert again == replace(read(task, answer), repeated=1, words=again.words)
    assert score(again) == pytest.approx(score(read(task, answer)) - GOLD.repeated)


@pytest.mark.parametrize(
    ("output", "ended"),
    [
        ("The end.", True),
        ("The end! ", True),
        ("The end?", True),
        ("The end", False),
        ("", False),
        ("a. b", False),
    ],
)
def test_ended_is_read_off_the_text(output, ended):
    assert read(task_of("Name two fruits."), output).ended == ended


def test_a_cut_sentence_is_charged_once():
    reading = read(task_of("Name two fruits."), "Some fruits are apple, pear. I hope you will")
    assert (reading.completion, reading.ended, reading.garbled) == (1.0, False, 0)


@pytest.mark.parametrize(
    ("instruction", "given", "output", "completion"),
    [
        ("Name three fruits.", "", "Some fruits are apple, pear, plum.", 1.0),
        ("Name three fruits.", "", "Some fruits are apple, pear.", 0.6),
        ("Name three fruits.", "", "Some fruits are apple, pear, apple.", 0.2),
        ("Name three fruits.", "", "Some fruits are apple, pear, lion.", 0.2),
        ("Name three fruits.", "", "Some fruits are lion, tiger, dog.", 0.0),
        ("Name two fruits. Do not include plum.", "", "Some fruits are apple, plum.", 0.2),
        (
            "Describe a lion in one sentence. Use the word brave.",
            "",
            "A lion is a nice animal that lives in Africa.",
            0.4,
        ),
        (
            "Describe a lion in one sentence. Use the word brave.",
            "",
            "A dog is a brave animal that lives in Africa.",
            0.0,
        ),
        ("Rewrite this to be polite.", "Close the door.", "Could you please close the door?", 1.0),
        ("Rewrite this to be polite.", "Close the door.", "Could you just close the door?", 0.4),
        ("What is the capital of Peru?", "", "The capital of Peru is Rome.", 0.0),
        ("How do I make tea?", "", "First, boil the water. Finally, add the tea.", 0.6),
        ("How do I make tea?", "", "First, dig a hole. Then, fill the cup. Finally, add the tea.", 0.5),
        (
            "Plan a day at the zoo. Include this: see the tigers.",
            "",
            "In the morning, see the tigers. In the morning, feed the birds. In the evening, draw a horse.",
            0.2,
        ),
        (
            "Plan a day at the zoo. Include this: see the tigers.",
            "",
            "In the morning, visit the lions. "  # not the tigers
            "In the afternoon, feed the birds. In the evening, draw a horse.",
            0.6,
        ),
        ("What is the capital of Peru?", "", "", 0.0),
    ],
)
def test_completion(instruction, given, output, completion):
    assert read(task_of(instruction, given), output).completion == pytest.approx(completion)


def test_sentences_are_counted_only_where_one_was_asked_for():
    assert (
        read(
            task_of("Use apple and dog in one sentence."), "The apple is near the dog. I hope this helps!"
        ).extra_sentences
        == 1
    )
    assert (
        read(task_of("Name two fruits."), "Some fruits are apple, pear. I hope this helps!").extra_sentences
        == 0
    )


def test_one_pleasantry_is_welcome_and_more_are_not():
    values = [score(replace(FLAWLESS_READING, pleasantries=n)) for n in range(5)]
    assert values[1] > values[0] == values[2] > values[3] > values[4]


def test_extras_add_less_and_less():
    values = [score(replace(FLAWLESS_READING, extras=n)) for n in range(4)]
    assert values[1] - values[0] > values[2] - values[1] > values[3] - values[2] == 0


def test_the_worth_of_an_output_is_the_weighted_sum_of_its_counts():
    reading = Reading(
        completion=0.5,
        extras=1,
        pleasantries=3,
        rude=1,
        vague=2,
        off_topic=3,
        garbled=4,
        repeated=5,
        ended=False,
        words=90,
        extra_sentences=2,
    )
    expected = 2 * 0.5 + 0.3 - 0.35 - 0.8 - 2 * 0.5 - 3 * 0.6 - 4 * 0.6 - 5 * 0.6 - 0.8 - 2 * 0.15
    assert score(reading) == pytest.approx(expected)


def test_length_alone_is_worth_nothing():
    assert score(replace(FLAWLESS_READING, words=500)) == score(FLAWLESS_READING)
