"""What people said is kept once and never lost; people do not get in each other's way."""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alpacafarm.errors import ArtifactError
from alpacafarm.label.labels import LEASE_S, Label, Labels, Taken

PAIRS = ["a", "b", "c", "d"]
NOW = 1000.0


@pytest.fixture
def labels(tmp_path) -> Labels:
    return Labels(tmp_path / "labels.sqlite", "key", PAIRS)


def say(labels: Labels, pair: str, labeller: str, choice="1", *, label_id=None, replaces=None) -> None:
    label = Label(label_id or f"{pair}-{labeller}-{choice}", pair, labeller, choice, swapped=False)
    labels.give(label, replaces=replaces)


def lease(labels: Labels, labeller: str, tab="t", *, keep=(), count=1, now=NOW) -> list[str]:
    return labels.lease(labeller, tab, keep=keep, count=count, now=now)


def test_what_was_asked_for_is_measured_before_another_asks_for_less(tmp_path):
    """Two runs on the same pairs that want different numbers of labels."""
    twice = [Labels(tmp_path / "labels.sqlite", "key", PAIRS) for _ in range(2)]
    for pair in PAIRS[:2]:
        say(twice[0], pair, "ann")
    more = twice[0].ask_for(labels_per_pair=1, goal=4)
    less = twice[1].ask_for(labels_per_pair=1, goal=2)
    assert (more.missing, less.missing) == (2, 0)
    assert twice[0].standing().missing == 0  # what the page shows is of the last who asked


def test_two_people_get_different_pairs_where_one_label_is_enough(labels):
    assert lease(labels, "ann", count=2) == ["a", "b"]
    assert lease(labels, "ben", count=2) == ["c", "d"]
    assert lease(labels, "cem") == []


def test_a_lease_from_before_the_clock_was_set_back_does_not_outlive_the_others(labels):
    assert lease(labels, "ann", count=4, now=NOW + 1e6) == PAIRS
    assert lease(labels, "ben", count=4) == PAIRS


def test_two_people_get_the_same_pairs_where_each_needs_two_labels(labels):
    labels.ask_for(labels_per_pair=2, goal=None)
    assert [lease(labels, who) for who in ("ann", "ben", "cem")] == [["a"], ["a"], ["b"]]


def test_a_lease_ends_with_its_time_or_with_its_tab(labels):
    lease(labels, "ann", count=4)
    assert lease(labels, "ben", now=NOW + LEASE_S - 1) == []
    assert lease(labels, "ben", now=NOW + LEASE_S) == ["a"]
    lease(labels, "ann", count=4)
    labels.release("ann", "t")
    assert lease(labels, "cem", count=4) == ["b", "c", "d"]


def test_a_lease_that_is_renewed_lasts(labels):
    lease(labels, "ann", count=4)
    lease(labels, "ann", keep=PAIRS, count=4, now=NOW + LEASE_S - 1)
    assert lease(labels, "ben", now=NOW + LEASE_S + 1) == []


def test_an_answer_that_got_lost_is_given_again(labels):
    assert lease(labels, "ann", count=2) == ["a", "b"]
    assert lease(labels, "ann", count=2) == ["a", "b"]
    assert lease(labels, "ann", keep=["b"], count=2) == ["b", "a"]


def test_another_tab_of_a_person_shows_other_pairs_until_none_are_left(labels):
    assert lease(labels, "ann", "one", count=2) == ["a", "b"]
    assert lease(labels, "ann", "two", count=2) == ["c", "d"]
    assert lease(labels, "ann", "three") == ["a"]  # whose tab may have died


def test_nobody_gets_a_pair_twice(labels):
    labels.ask_for(labels_per_pair=3, goal=None)
    for pair in PAIRS:
        assert lease(labels, "ann") == [pair]
        say(labels, pair, "ann")
    assert lease(labels, "ann") == []
    assert lease(labels, "ben") == ["a"]


def test_a_label_sent_twice_is_one(labels):
    for _ in range(3):
        say(labels, "a", "ann", label_id="x")
    assert [(one.id, one.pair) for one in labels.given()] == [("x", "a")]


def test_a_second_label_on_a_pair_is_refused_and_the_first_stays(labels):
    say(labels, "a", "ann", "1")
    with pytest.raises(Taken):
        say(labels, "a", "ann", "2")
    assert [one.choice for one in labels.given()] == ["1"]


def test_a_label_is_changed_by_naming_it_and_the_old_one_stays_in_the_file(labels):
    say(labels, "a", "ann", "1", label_id="old")
    for _ in range(2):  # also when it is sent again
        say(labels, "a", "ann", "2", label_id="new", replaces="old")
    with pytest.raises(Taken):
        say(labels, "a", "ann", "tie", label_id="late", replaces="old")
    assert [one.id for one in labels.given()] == ["new"]
    with sqlite3.connect(labels.path) as db:
        assert db.execute("SELECT id, replaced_by FROM labels").fetchall() == [("old", "new"), ("new", None)]


def test_a_label_counts_also_when_its_lease_has_ended(labels):
    lease(labels, "ann")
    lease(labels, "ben", now=NOW + LEASE_S)
    say(labels, "a", "ben", "1")
    say(labels, "a", "ann", "2")
    assert [(one.labeller, one.choice) for one in labels.given()] == [("ben", "1"), ("ann", "2")]


def test_a_pair_that_is_not_there_is_refused(labels):
    with pytest.raises(KeyError):
        say(labels, "e", "ann")


def test_back_goes_through_a_persons_own_labels(labels):
    for pair in "abc":
        say(labels, pair, "ann" if pair != "b" else "ben")
    last = labels.before("ann", None)
    assert last is not None
    assert last.pair == "c"
    first = labels.before("ann", last.seq)
    assert first is not None
    assert first.pair == "a"
    assert labels.before("ann", first.seq) is None


def test_a_skip_takes_a_place_but_is_no_verdict(labels):
    labels.ask_for(labels_per_pair=2, goal=None)
    for pair, who, choice in [
        ("a", "ann", "skip"),
        ("a", "ben", "1"),
        ("b", "ann", "skip"),
        ("b", "ben", "skip"),
        ("c", "ann", "tie"),
    ]:
        say(labels, pair, who, choice)
    standing = labels.standing()
    assert (standing.judged, standing.skipped, standing.begun, standing.labels) == (1, 1, 1, 5)
    assert standing.missing == 2
    assert labels.counts() == {"ann": 3, "ben": 2}


def test_with_a_goal_skipped_pairs_are_made_up_for_while_there_are_others(labels):
    labels.ask_for(labels_per_pair=1, goal=2)
    say(labels, "a", "ann", "skip")
    assert labels.standing().missing == 2
    say(labels, "b", "ann")
    say(labels, "c", "ann")
    assert labels.standing().missing == 0
    assert lease(labels, "ben") == []  # enough
    labels.ask_for(labels_per_pair=1, goal=4)
    assert labels.standing().missing == 1  # of the four one is skipped
    assert lease(labels, "ben") == ["d"]


def test_labels_of_other_pairs_are_not_taken_for_these(labels):
    with pytest.raises(
        ArtifactError, match=r"has labels of other pairs than .*pairs\.jsonl: that file was chan"
    ):
        Labels(labels.path, "other", PAIRS)


def test_a_file_that_is_no_database_is_told(tmp_path):
    (tmp_path / "labels.sqlite").write_text("nonsense, and long enough to be looked at" * 100)
    with pytest.raises(ArtifactError, match=r"labels\.sqlite: file is not a database; nothing was written"):
        Labels(tmp_path / "labels.sqlite", "key", PAIRS)


def test_many_at_once_never_exceed_the_labels_that_are_asked_for(tmp_path):
    pairs = [str(i) for i in range(30)]
    first = Labels(tmp_path / "labels.sqlite", "key", pairs)
    first.ask_for(labels_per_pair=2, goal=None)

    def work(who: str) -> int:
        own, count = Labels(first.path, "key", pairs), 0  # as another server would
        while found := lease(own, who):
            say(own, found[0], who)
            count += 1
        return count

    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(work, ["ann", "ben", "cem", "dan"]))
    given = first.given()
    assert sum(counts) == len(given) == 60
    assert {len([one for one in given if one.pair == pair]) for pair in pairs} == {2}


DIE = """
import os, signal, sys
from pathlib import Path
from alpacafarm.label.labels import Label, Labels
labels = Labels(Path(sys.argv[1]), "key", ["a", "b", "c", "d"])
for pair in "abc":
    labels.give(Label(pair, pair, "ann", "1", False))
    print(pair, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_was_given_survives_kill_9(tmp_path):
    path = tmp_path / "labels.sqlite"
    done = subprocess.run([sys.executable, "-c", DIE, str(path)], capture_output=True, text=True)
    assert done.returncode == -9
    assert done.stdout.split() == ["a", "b", "c"]
    assert [one.pair for one in Labels(Path(path), "key", PAIRS).given()] == ["a", "b", "c"]
