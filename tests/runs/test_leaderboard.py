"""The leaderboard and the comparison of real runs, and what their artifacts say to AlpacaEval."""

import json

import pytest

from alpacafarm import compare
from alpacafarm.leaderboard.__main__ import main


@pytest.fixture
def runs(perform):
    return [perform("sft", "name=first"), perform("best_of_n", "name=second")]


def test_run_folders_give_the_numbers_of_their_results(runs, capsys):
    assert main([*(str(run.folder) for run in runs), "--json"]) == 0
    told = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(told) == {"first", "second"}
    for run in runs:
        row, result = told[run.result["name"]], run.result["eval"]
        for key in ("win_rate", "standard_error", "n_wins", "n_wins_base", "n_draws", "n_total", "judge"):
            assert row[key] == result[key], key
        assert row["avg_length"] == pytest.approx(result["avg_length"])
        assert row["reference"] == result["reference"]
        assert row["n_failures"] == 0


def test_alpaca_eval_reads_outputs_and_annotations_of_a_run(runs):
    metrics = pytest.importorskip("alpaca_eval.metrics")
    utils = pytest.importorskip("alpaca_eval.utils")
    import pandas as pd

    run = runs[0]
    frame = utils.load_or_convert_to_dataframe(run.result["outputs"])
    assert {"instruction", "output", "generator", "dataset"} <= set(frame.columns)
    assert len(frame) == 16
    found = metrics.get_winrate(pd.read_json(run.artifact("compare") / "annotations.json"))
    assert found["win_rate"] == pytest.approx(run.result["eval"]["win_rate"])
    assert found["n_total"] == run.result["eval"]["n_total"]


def test_scores_account_for_every_row(runs):
    scores = json.loads((runs[1].artifact("compare") / "scores.json").read_text())
    assert scores["failures"] == {"eval": {}, "vs_sft": {}}
    assert scores["eval"]["n_total"] + scores["eval"]["n_failures"] == 16
    controlled = scores["eval"]["length_controlled_win_rate"]
    assert (controlled is None) == (scores["eval"]["length_controlled_reason"] is not None)
    assert runs[1].result["eval"]["length_controlled_win_rate"] == controlled


def test_comparison_has_the_difference_of_the_runs(runs, tmp_path):
    assert compare.main([*(str(run.folder) for run in runs), "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "comparison.json").read_text())
    one = told["differences"][0]
    assert one["n_total"] == 16
    rates = {run.folder.name: run.result["eval"]["win_rate"] for run in runs}
    assert one["estimate"] == pytest.approx(rates[one["run"]] - rates[one["less"]])
    assert len(told["gold_head_to_head"]) == 2
