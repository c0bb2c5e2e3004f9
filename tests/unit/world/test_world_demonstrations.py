import random
from functools import cache
from itertools import combinations

import pytest

from alpacafarm.world import demonstrations, forms
from alpacafarm.world.demonstrations import Quality, compose, demonstrate
from alpacafarm.world.documents import documents
from alpacafarm.world.gold import Reading, read, score
from alpacafarm.world.tasks import parse, tasks

N = 4000


@cache
def readings(quality: Quality) -> list[Reading]:
    rng = random.Random(0)
    return [read(task, demonstrate(task, rng, quality)) for task in tasks("sft", N, seed=0)]


@pytest.mark.parametrize("quality", [Quality.WEB, Quality.SFT, Quality.REFERENCE])
def test_surface_faults_have_their_probabilities(quality):
    # Off-topic sentences are left out: being last, some are cut off.
    drawn = readings(quality)
    rates = {
        demonstrations.RUDE_PROBABILITY: sum(r.rude for r in drawn) / N,
        demonstrations.REPEATED_PROBABILITY: sum(r.repeated for r in drawn) / N,
        demonstrations.CUT_OFF_PROBABILITY: sum(not r.ended for r in drawn) / N,
    }
    for probability, rate in rates.items():
        expected = probability * quality.value
        assert abs(rate - expected) < 4 * (expected * (1 - expected) / N) ** 0.5


def test_surface_faults_are_independent():
    drawn = readings(Quality.SFT)
    for a, b in combinations(
        ([r.rude > 0 for r in drawn], [r.vague > 0 for r in drawn], [r.repeated > 0 for r in drawn]), 2
    ):
        both = sum(x and y for x, y in zip(a, b, strict=True)) / N
        assert both == pytest.approx(sum(a) * sum(b) / N**2, abs=4 * (both / N) ** 0.5)


def test_an_answer_that_is_cut_off_never_ends():
    rng = random.Random(0)
    for task in tasks("sft", 2000, seed=0):
        answer = compose(task, rng, lambda probability: probability == demonstrations.CUT_OFF_PROBABILITY)
        assert not read(task, answer).ended


def test_worse_qualities_are_worse_on_gold():
    mean = {quality: sum(map(score, readings(quality))) / N for quality in Quality}
    assert mean[Quality.FLAWLESS] > mean[Quality.REFERENCE] > mean[Quality.SFT] > mean[Quality.WEB]


def test_no_demonstration_is_garbled():
    # Whatever the writer writes, the reader knows: garbled is left to models.
    assert not any(reading.garbled for quality in Quality for reading in readings(quality))


def test_answers_are_short():
    assert 15 < sum(reading.words for reading in readings(Quality.SFT)) / N < 25


@pytest.mark.parametrize(
    ("good", "bad"),
    [(forms.OPENERS, forms.RUDE + forms.VAGUE), (forms.CLOSERS, forms.OFF_TOPIC)],
)
def test_good_and_faulty_sentences_share_their_first_word(good, bad):
    assert len({sentence.split()[0] for sentence in good + bad}) == 1


def test_no_sentence_has_two_meanings():
    kinds = [forms.OPENERS, forms.CLOSERS, forms.RUDE, forms.VAGUE, forms.OFF_TOPIC, *forms.EXTRAS.values()]
    sentences = [sentence for kind in kinds for sentence in kind]
    assert len(sentences) == len(set(sentences))


def test_tables_of_faults_cover_the_answers():
    assert set(demonstrations.MISSING) == set(demonstrations.WRONG) == set(forms.ANSWERS)
    for family, sentences in forms.ANSWERS.items():
        assert len(demonstrations.MISSING[family]) == len(sentences)
        for slot, _, _ in demonstrations.WRONG[family]:
            assert any(f"{{{slot}}}" in sentence for sentence in sentences)


def test_documents_are_reproducible_and_not_held_out():
    drawn = list(documents(500, seed=0))
    assert drawn == list(documents(500, seed=0)) != list(documents(500, seed=1))
    held_out = {(task.instruction, task.input) for task in tasks("eval", 5000, seed=0)}
    for task, answer in drawn:
        assert parse(task.instruction, task.input) == task
        assert (task.instruction, task.input) not in held_out
        assert answer
