"""Verdicts of a file: found in either order, and one for each pair."""

import json

import pytest

from alpacafarm.errors import JudgeError
from alpacafarm.judges.recorded import RecordedVerdicts
from alpacafarm.types import Pair


def row(first, second, preference):
    texts = {"instruction": "Say hi.", "input": "", "output_1": first, "output_2": second}
    return {**texts, "preference": preference, "annotator": "ann"}


def judge(tmp_path, *rows):
    path = tmp_path / "verdicts.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return RecordedVerdicts(str(path))


def told(judge, first, second):
    (verdict,) = judge.compare([Pair("1", "Say hi.", "", first, second)])
    return verdict.preference


def test_a_pair_is_found_in_either_order_and_no_other(tmp_path):
    found = judge(tmp_path, row("Hi.", "No.", 1), row("Hello.", "Hi.", 1.5))
    assert (told(found, "Hi.", "No."), told(found, "No.", "Hi."), told(found, "Hi.", "Hello.")) == (1, 2, 1.5)
    (verdict,) = found.compare([Pair("1", "Say hi.", "", "Hi.", "Bye.")])
    assert (verdict.preference, verdict.failure) == (None, "not recorded")


@pytest.mark.parametrize("again", [row("Hi.", "No.", 2), row("No.", "Hi.", 1)])
def test_two_verdicts_on_one_pair_are_refused(tmp_path, again):
    with pytest.raises(
        JudgeError, match=r"verdicts.jsonl.*2.*: preference=[12], and the file has [12] for this"
    ):
        judge(tmp_path, row("Hi.", "No.", 1), again)


def test_the_same_verdict_twice_is_one(tmp_path):
    assert told(judge(tmp_path, row("Hi.", "No.", 1), row("No.", "Hi.", 2)), "Hi.", "No.") == 1
