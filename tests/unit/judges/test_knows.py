"""A recorded judge's file stands in the plan by its content."""

from pathlib import Path

import pytest

from alpacafarm.errors import PlanError
from alpacafarm.judges.knows import judge_inputs
from alpacafarm.spec.judge import RecordedJudge, WorldJudge


def key(path: Path) -> str:
    return judge_inputs(RecordedJudge(kind="recorded", path=str(path)), "eval", None)["verdicts"].key


def test_other_verdicts_at_the_same_path_give_another_key(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("{}\n")
    before = key(path)
    assert key(path) == before
    path.write_text("[]\n")
    assert key(path) != before


def test_a_missing_file_is_refused_when_the_run_is_planned(tmp_path: Path):
    with pytest.raises(PlanError, match=r"eval\.judge\.path=.*no such file; set it to"):
        key(tmp_path / "nothing.jsonl")


def test_other_judges_have_no_file():
    assert judge_inputs(WorldJudge(kind="world", pool="eval", pool_seed=0), "eval", None) == {}
