"""Parents before children, independent stages side by side, failures passed down and nothing else lost."""

import sys
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
STAGES = [base, rows, sft, pairs, reward, dpo]


def many(make, most=4, stages=STAGES):
    """By name what became of each stage."""
    outcomes = {}
    with schedule.AtOnce(stages, make, most=most, stop=lambda: None).running() as making:
        for stage in reversed(stages):
            try:
                outcomes[stage.name] = making.made(stage)
            except (StageError, SystemExit) as error:
                outcomes[stage.name] = str(error)
    return outcomes


def test_rows_come_first_then_parents_before_children():
    order = []
    schedule.in_turn([base, sft, rows, pairs, reward, dpo], lambda s: order.append(s.name))
    assert order == ["rows", "base", "sft", "pairs", "reward", "dpo"]


def test_no_child_begins_before_its_parents_have_ended():
    ended, early = set(), []

    def make(stage):
        early.extend(schedule.parents(stage) - ended)
        ended.add(stage.key)
        return stage.name

    assert many(make) == {s.name: s.name for s in STAGES}
    assert not early


def test_independent_stages_run_side_by_side():
    together = threading.Barrier(2, timeout=60)  # breaks unless both are there at the same time
    made = many(lambda s: together.wait() if s in (reward, dpo) else None)
    assert {made["reward"], made["dpo"]} == {0, 1}


def test_no_more_than_asked_for_at_the_same_time():
    lock, running, seen = threading.Lock(), 0, []
    together = threading.Barrier(2, timeout=60)

    def make(stage):
        nonlocal running
        with lock:
            running += 1
            seen.append(running)
        together.wait()
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

    assert many(make, stages=[*STAGES, below]) == {
        **{s.name: s.name for s in STAGES},
        "reward": "no luck",
        "ppo": "no luck",
    }


def test_of_what_could_begin_the_first_begins():
    order = []
    later = [stage(f"later {number}") for number in range(3)]
    many(lambda s: order.append(s.name), most=1, stages=[*STAGES, *later])
    assert order == [*(s.name for s in STAGES), *(s.name for s in later)]


def test_what_is_no_plain_exception_is_told_too():
    def make(stage):
        sys.exit("left")

    assert many(make, stages=[base, rows, sft]) == dict.fromkeys(("base", "rows", "sft"), "left")


def test_an_error_told_again_holds_the_frames_of_one_teller():
    def make(stage):
        raise StageError("no luck")

    def frames(making, stage):
        with pytest.raises(StageError) as told:
            making.made(stage)
        return [entry.name for entry in told.traceback]

    with schedule.AtOnce(STAGES, make, most=1, stop=lambda: None).running() as making:
        first = frames(making, base)
        assert first[-1] == "make"
        assert frames(making, sft) == frames(making, reward) == first


@pytest.fixture
def held():
    """What began of stages that run until they are stopped, and what makes them."""
    began, stopped = [], threading.Event()

    def make(stage):
        began.append(stage.name)
        assert stopped.wait(60)
        raise StageError("was stopped")

    return began, schedule.AtOnce(STAGES, make, most=4, stop=stopped.set)


def test_leaving_early_stops_what_runs_and_begins_nothing_more(held, caplog):
    began, making = held

    def interrupted():
        with making.running():
            while len(began) < 2:
                threading.Event().wait(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert sorted(began) == ["base", "rows"]
    for made in STAGES:
        with pytest.raises(StageError):
            making.made(made)
    assert not caplog.records  # a stage that was stopped has not failed


def test_ctrl_c_while_the_end_waits_stops_what_runs(held, monkeypatch):
    began, making = held

    def interrupt():
        while len(began) < 2:
            threading.Event().wait(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(making, "wait", interrupt)
    with pytest.raises(KeyboardInterrupt), making.running():
        pass
    assert sorted(began) == ["base", "rows"]
    with pytest.raises(StageError, match="was stopped"):
        making.made(base)
