"""Runs on the same rows, from verdicts and outputs made by hand."""

import json
import random
from dataclasses import replace

import pytest

from alpacafarm.data.annotations import Annotation, write_annotations
from alpacafarm.data.rows import write_outputs
from alpacafarm.report import comparison, differences, folder
from alpacafarm.report.result import Evaluation, Gold, Result, StageLine
from alpacafarm.types import Output
from alpacafarm.world.demonstrations import Quality, demonstrate
from alpacafarm.world.gold import preference
from alpacafarm.world.tasks import tasks

N = 60


def made(home, won, *, method="ppo", judge="j", reference="ref", answers=()):
    """A run whose artifacts lie below `home`; `won` are its preferences by row."""
    rows = [
        Annotation(
            f"r{i}", i, p, f"q{i}", f"{reference} {i}", f"a{i}", baseline="reference", model="m", judge=judge
        )
        for i, p in enumerate(won)
    ]
    write_annotations(home / "scores" / "annotations.json", rows)
    if answers:
        write_outputs(home / "outputs.json", answers)
    return replace(
        Result("x", method, "sim", "world", "world", 0),
        eval=Evaluation(50.0, 1.0, None, len(rows), 1, 1, 0, 9.0, judge, "reference"),
        gold=Gold(50.0, 1.0, 0.5) if answers else None,
        outputs=str(home / "outputs.json"),
        stages=(StageLine("compare", "k", "scores", "made", 1.0, str(home / "scores")),),
    )


def verdicts(rate, seed):
    rng = random.Random(seed)
    return [1 + (rng.random() < rate) for _ in range(N)]


def test_runs_are_compared_with_the_best_and_with_sft_on_the_rows_they_share(tmp_path):
    results = {
        "sft": made(tmp_path / "0", verdicts(0.3, 0), method="sft"),
        "good": made(tmp_path / "1", verdicts(0.9, 1)),
        "fair": made(tmp_path / "2", [*verdicts(0.5, 2)[:-1], None]),
    }
    told = differences.differences(results)
    pairs = {(d.run, d.other, d.role): d.difference for d in told}
    assert set(pairs) == {
        ("sft", "good", "best"),
        ("fair", "good", "best"),
        ("good", "sft", "SFT"),
        ("fair", "sft", "SFT"),
    }
    assert pairs["fair", "good", "best"].n_total == N - 1
    gap = sum(verdicts(0.9, 1)) - sum(verdicts(0.3, 0))
    assert pairs["good", "sft", "SFT"].estimate == pytest.approx(100 * gap / N)
    assert pairs["good", "sft", "SFT"].low > 0


def test_other_judges_and_other_references_are_not_compared(tmp_path):
    results = {
        "a": made(tmp_path / "0", verdicts(0.3, 0)),
        "b": made(tmp_path / "1", verdicts(0.9, 1), judge="other"),
        "c": made(tmp_path / "2", verdicts(0.9, 1), reference="another"),
        "gone": made(tmp_path / "3", verdicts(0.9, 1)),
    }
    (tmp_path / "3" / "scores" / "annotations.json").unlink()
    assert differences.differences(results) == []


@pytest.fixture
def answered():
    """The world's own rows, answered by two demonstrators."""
    rng = random.Random(0)
    found = tasks("eval", N, 0)

    def outputs(quality):
        return [
            Output(f"r{i}", *texts(task), demonstrate(task, rng, quality), "m")
            for i, task in enumerate(found)
        ]

    return found, outputs


def texts(task):
    return task.instruction, task.input


def test_gold_says_who_is_truly_preferred(tmp_path, answered):
    found, outputs = answered
    one, other = outputs(Quality.REFERENCE), outputs(Quality.WEB)
    results = {
        "one": made(tmp_path / "0", verdicts(0.5, 0), answers=one),
        "other": made(tmp_path / "1", verdicts(0.5, 1), answers=other),
    }
    names, cells = differences.gold_duels(results)
    expected = [preference(t, b.output, a.output) - 1 for t, a, b in zip(found, one, other, strict=True)]
    assert names == ["one", "other"]
    assert cells["one", "other"].win_rate == pytest.approx(100 * sum(expected) / N)
    assert cells["one", "other"].win_rate + cells["other", "one"].win_rate == 100
    assert differences.gold_duels({"one": results["one"]}) == ([], {})


def test_page_and_json_have_the_differences(tmp_path, answered):
    _, outputs = answered
    for i in range(2):
        run = tmp_path / "runs" / str(i)
        folder.begin(run, json.dumps({"method": {"name": "ppo"}, "seed": i}), [f"seed={i}"])
        result = made(tmp_path / f"store{i}", verdicts(0.2 + 0.6 * i, i), answers=outputs(Quality.REFERENCE))
        (run / "result.json").write_text(result.to_json())
    comparison.write(tmp_path, "all", [tmp_path / "runs"])
    told = json.loads((tmp_path / "all.json").read_text())
    (one,) = told["differences"]
    assert (one["run"], one["less"], one["which_is"], one["n_total"]) == ("0", "1", "best", N)
    assert {(d["run"], d["preferred_to"]) for d in told["gold_head_to_head"]} == {("0", "1"), ("1", "0")}
    page = (tmp_path / "all.html").read_text()
    assert "Differences of win rates" in page
    assert "Head to head by gold" in page
