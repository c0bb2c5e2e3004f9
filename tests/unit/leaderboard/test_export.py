"""AlpacaEval reads what is written."""

import json

import pytest

from alpacafarm.leaderboard.__main__ import main
from alpacafarm.stats.winrate import win_rate
from tests.unit.leaderboard.conftest import rows, saved

PREFERENCES = [2, 1, 1.5, 1.25, None, 0]


@pytest.fixture
def exported(tmp_path, board):
    path = saved(tmp_path / "a.json", [{**row, "input": "given"} for row in rows("m/x", PREFERENCES)])
    first = board(path, "--export", tmp_path / "out")
    folder = tmp_path / "out" / "m_x"
    assert board(folder / "j" / "annotations.json")[0] == {
        **first[0],
        "source": str(folder / "j" / "annotations.json"),
    }
    return folder


def test_annotations_have_alpaca_evals_keys_and_every_row(exported):
    told = json.loads((exported / "j" / "annotations.json").read_text())
    keys = {"instruction", "output_1", "output_2", "generator_1", "generator_2", "annotator", "preference"}
    assert all(keys <= set(row) for row in told)
    assert [row["preference"] for row in told] == [2, 1, 1.5, 1.25, None, 1.5]
    assert told[1]["instruction"] == "question 1\n\ngiven"
    assert {row["generator_2"] for row in told} == {"m/x"}


def test_alpaca_evals_own_metric_reads_the_annotations(exported):
    metrics = pytest.importorskip("alpaca_eval.metrics")
    import pandas as pd

    found = metrics.get_winrate(pd.read_json(exported / "j" / "annotations.json"))
    expected = win_rate(PREFERENCES)
    assert found["win_rate"] == pytest.approx(expected.win_rate)
    assert found["standard_error"] == pytest.approx(expected.standard_error)
    assert found["discrete_win_rate"] == pytest.approx(expected.discrete_win_rate)
    assert [found[k] for k in ("n_wins", "n_wins_base", "n_draws", "n_total")] == [1, 2, 2, 5]


def test_outputs_are_model_outputs_in_the_order_of_the_rows(exported):
    utils = pytest.importorskip("alpaca_eval.utils")
    frame = utils.load_or_convert_to_dataframe(exported / "model_outputs.json")
    assert list(frame["output"]) == ["ans" * i + str(i) for i in range(6)]
    assert set(frame["generator"]) == {"m/x"}
    reference = json.loads((exported / "reference_outputs.json").read_text())
    assert [row["output"] for row in reference] == [f"base {i}" for i in range(6)]


def test_verdicts_without_texts_are_not_exported(tmp_path, refused):
    bare = [{"preference": 2, "len_1": 3, "len_2": 4}]
    assert "cannot be exported" in refused(saved(tmp_path / "a.json", bare), "--export", tmp_path / "out")


def test_the_command_says_what_it_wrote(tmp_path, capsys):
    path = saved(tmp_path / "a.json", rows())
    assert main([str(path), "--export", str(tmp_path / "out")]) == 0
    assert f"Written: {tmp_path / 'out' / 'm' / 'j' / 'annotations.json'}\n" in capsys.readouterr().out


def test_two_entries_for_one_file_are_refused(tmp_path, refused):
    files = [saved(tmp_path / f"{i}.json", rows("m", [2], baseline=f"b{i}")) for i in range(2)]
    assert "would both be written there" in refused(*files, "--export", tmp_path / "out")
