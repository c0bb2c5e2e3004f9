from collections import Counter

import pytest

from alpacafarm.world.forms import ANSWERS, FORMS, WEIGHTS
from alpacafarm.world.tasks import Task, apportion, parse, selection, tasks, wanted

TRAINING = ("pretrain", "sft", "preference", "unlabeled")


def texts(drawn: list[Task]) -> set[tuple[str, str]]:
    return {(task.instruction, task.input) for task in drawn}


@pytest.mark.parametrize("split", [*TRAINING, "val", "eval"])
def test_parse_recovers_the_task_from_its_text(split):
    for task in tasks(split, 3000, seed=1):
        assert parse(task.instruction, task.input) == task


def test_every_detail_can_be_read_in_the_text():
    # Guards the round trip against two tasks with one text: what a task asks for is all said.
    numbers = {2: "two", 3: "three", 4: "four", 5: "five"}
    for task in tasks("sft", 3000, seed=2):
        text = f"{task.instruction} {task.input}".lower()
        assert all(str(numbers.get(value, value)).lower() in text for value in task.details.values())


def test_no_one_writes_to_themselves_and_no_word_is_asked_for_twice():
    for task in tasks("sft", 3000, seed=2):
        assert len(set(task.details.values())) == len(task.details)


def test_parse_does_not_know_foreign_texts():
    assert parse("Prove the Riemann hypothesis.", "") is None
    assert parse("Rewrite this to be polite.", "") is None


@pytest.mark.parametrize("split", TRAINING)
def test_no_held_out_text_is_in_a_training_split(split):
    training = texts(tasks(split, 40_000, seed=0))
    for held_out in ("val", "eval"):
        assert not training & texts(tasks(held_out, 5000, seed=0))


def test_val_and_eval_are_disjoint():
    assert not texts(tasks("val", 5000, seed=0)) & texts(tasks("eval", 5000, seed=0))


@pytest.mark.parametrize("split", ["val", "eval"])
def test_held_out_tasks_are_distinct_and_have_the_family_shares(split):
    drawn = tasks(split, 805, seed=0)
    assert len(texts(drawn)) == 805
    shares = Counter(task.family for task in drawn)
    for family, weight in WEIGHTS.items():
        assert abs(shares[family] - 805 * weight / sum(WEIGHTS.values())) < 1


def test_training_families_and_forms_have_their_shares():
    n = 20_000
    shares = Counter(task.family for task in tasks("sft", n, seed=0))
    for family, weight in WEIGHTS.items():
        expected = weight / sum(WEIGHTS.values())
        assert abs(shares[family] / n - expected) < 5 * (expected * (1 - expected) / n) ** 0.5
    assert set(shares) == set(WEIGHTS) == set(FORMS)


def test_every_right_answer_is_seen_in_training_where_it_must_be_known_by_heart():
    train = tasks("pretrain", 40_000, seed=0)
    for family in ("capital", "how_to", "comparison", "describe"):
        right = {sentence for task in train if task.family == family for sentence in wanted(task)}
        assert {s for task in tasks("eval", 805, 0) if task.family == family for s in wanted(task)} <= right


def test_draws_depend_on_split_and_seed_only():
    assert tasks("sft", 50, seed=3) == tasks("sft", 80, seed=3)[:50]
    assert tasks("sft", 50, seed=3) != tasks("sft", 50, seed=4)
    assert tasks("sft", 50, seed=3) != tasks("preference", 50, seed=3)
    assert tasks("eval", 50, seed=3) == tasks("eval", 50, seed=3)


def test_asking_for_more_than_is_held_out_says_how_many_there_are():
    with pytest.raises(
        ValueError, match=r"eval has \d+ distinct tasks, 1000000 were asked for; ask for fewer"
    ):
        tasks("eval", 1_000_000, seed=0)


def test_families_either_have_right_sentences_or_a_selection():
    for task in tasks("sft", 2000, seed=5):
        if task.family in ANSWERS:
            assert len(wanted(task)) == len(ANSWERS[task.family])
            assert not any("{" in sentence for sentence in wanted(task))
            continue
        choice = selection(task)
        assert not wanted(task)
        assert choice.number < len(choice.allowed)
        assert task.details.get("excluded") not in choice.allowed
        assert choice.required is None or choice.required in choice.allowed


def test_apportion_is_largest_remainder():
    assert apportion(10, [1, 1, 1], [10, 10, 10]) == [4, 3, 3]
    # Quotas 41.6, 41.2, 17.2: the seat left over goes to the largest remainder.
    assert apportion(100, [41.6, 41.2, 17.2], [100] * 3) == [42, 41, 17]


def test_apportion_shares_what_a_capacity_leaves_over_by_weight():
    assert apportion(12, [2, 1, 1], [2, 100, 100]) == [2, 5, 5]
    assert apportion(6, [1, 1, 100], [1, 3, 2]) == [1, 3, 2]
