"""Parents before children, independent stages side by side, failures passed down and nothing else lost."""

import threading

import pytest

from alpacafarm.errors import StageError
from alpacafarm.pipeline import schedule
from alpacafarm.stage import Kind, Stage


def stage(name, *parents, devices=True):
    inputs = {parent.name: parent for parent in parents}
    return Stage(name, "x:y", Kind.ROWS, {"name": name}, inputs, seed=0, uses_devices=devices)


base = stage("base")
rows = stage("rows", devices=False)
sft = stage("sft", base, rows)
pairs = stage("pairs", sft)
reward = stage("reward", pairs)
dpo = stage("dpo", pairs)
STAGES = [base, sft, rows, pairs, reward, dpo]


def many(make, most=4, stages=STAGES):
    return schedule.at_once(stages, make, most=most, stop=lambda: None)


def test_rows_come_first_then_parents_before_children():
    order = []
    schedule.in_turn(STAGES, lambda s: order.append(s.name))
    assert order == ["rows", "base", "sft", "pairs", "reward", "dpo"]


def test_no_child_begins_before_its_parents_have_ended():
    ended, early = set(), []

    def make(stage):
        early.extend(schedule.parents(stage) - ended)
        ended.add(stage.key)
        return stage.name

    made, failed = many(make)
    assert made == {s.key: s.name for s in STAGES}
    assert not failed
    assert not early


def test_independent_stages_run_side_by_side():
    together = threading.Barrier(2, timeout=20)  # breaks unless both are there at the same time
    made, _ = many(lambda s: together.wait() if s in (reward, dpo) else None)
    assert len(made) == 6


def test_no_more_than_asked_for_at_the_same_time():
    lock, running, seen = threading.Lock(), 0, []

    def make(stage):
        nonlocal running
        with lock:
            running += 1
            seen.append(running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    many(make, most=2, stages=[stage(str(i)) for i in range(8)])
    assert max(seen) == 2


def test_a_failure_fails_what_is_below_it_and_nothing_else():
    below = stage("ppo", reward)

    def make(stage):
        if stage is reward:
            raise StageError("no luck")
        return stage.name

    made, failed = many(make, stages=[*STAGES, below])
    assert {*made.values()} == {"base", "rows", "sft", "pairs", "dpo"}
    assert {key: str(error) for key, error in failed.items()} == {reward.key: "no luck", below.key: "no luck"}


def test_another_error_stops_everything():
    stopped = threading.Event()

    def make(stage):
        if stage is rows:
            raise KeyboardInterrupt
        assert stopped.wait(20)
        raise StageError("was stopped")

    with pytest.raises(KeyboardInterrupt):
        schedule.at_once(STAGES, make, most=4, stop=stopped.set)
