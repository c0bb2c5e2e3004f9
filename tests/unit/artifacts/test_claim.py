"""Several real processes at one store."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from alpacafarm.artifacts.store import Store
from alpacafarm.errors import StageError
from tests.unit.artifacts.stored import make, stage

ROOT = Path(__file__).parents[3]


@pytest.fixture
def start(store):
    """Starts a maker; all are ended with the test."""
    started = []

    def start():
        command = [sys.executable, str(Path(__file__).with_name("maker.py")), str(store.root)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        started.append(subprocess.Popen(command, text=True, bufsize=1, env=environment, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def go_on(process):
    process.stdin.write("\n")
    return process.stdout.readline().strip()


def test_one_makes_and_the_others_wait_and_reuse(start, store):
    first = start()
    assert first.stdout.readline().strip() == "began"
    others = [start(), start()]
    for other in others:
        assert f"waiting for stage sft made by pid {first.pid} on host" in other.stderr.readline()
    assert go_on(first) == "made"
    for other in others:
        assert other.stdout.readline().strip() == "reused"
        assert other.communicate()[1] == ""  # it said once that it waits
    assert (store.find(stage()).path / "maker").read_text() == str(first.pid)


def test_a_thread_that_waits_for_another_maker_gives_up_when_told(start, store):
    maker = start()
    assert maker.stdout.readline().strip() == "began"
    ended = []

    def wait():
        try:
            make(store, stage())
        except StageError as error:
            ended.append(str(error))

    waiting = threading.Thread(target=wait)
    waiting.start()
    store.give_up()
    waiting.join(20)
    assert ended == ["stage sft was not waited for: the command was ended, its maker goes on"]
    assert go_on(maker) == "made"


def test_after_kill_9_of_the_maker_a_waiter_takes_over_and_scratch_survives(start, store):
    first = start()
    assert first.stdout.readline().strip() == "began"
    second = start()
    assert "waiting" in second.stderr.readline()
    first.kill()
    assert f"by-{first.pid}" in second.stdout.readline()
    assert go_on(second) == "made"
    assert (store.find(stage()).path / "maker").read_text() == str(second.pid)


def test_after_kill_9_without_a_waiter_the_claim_is_free(start, store):
    first = start()
    assert first.stdout.readline().strip() == "began"
    first.kill()
    first.wait()
    with store.claim(stage()) as claim:
        assert claim.resumed
        assert (claim.folder / "scratch" / f"by-{first.pid}").exists()


def test_damage_seen_while_another_process_makes_is_left_to_it(start, store):
    made = make(store, stage())
    (made.path / "artifact.json").write_text("{")
    first = start()
    assert first.stdout.readline().strip() == "began"
    damaged = made.path.with_name(f"{made.path.name}.damaged-1")
    damaged.rename(made.path)  # as a slow reader may still see it
    assert store.find(stage()) is None
    assert made.path.exists()


def test_threads_with_stores_of_their_own_make_once(store):
    made = []

    def work():
        own = Store(store.root)
        with own.claim(stage()) as claim:
            if claim.artifact is None:
                made.append(threading.get_ident())
                own.publish(stage(), claim.folder)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert store.state(stage()) == "done"


def test_a_second_copy_does_not_replace_the_first(store):
    """Where locks fail, as they may over a network, the first to be renamed stays."""
    with store.claim(stage()) as claim:
        (claim.folder / "out" / "maker").write_text("slow")
        store.root.joinpath("other").mkdir()
        first = make(Store(store.root / "other"), stage(), {"maker": "fast"})
        first.path.rename(store.folder(stage()))
        kept = store.publish(stage(), claim.folder)
    assert (kept.path / "maker").read_text() == "fast"
    assert not claim.folder.exists()
