"""`alpaca_leaderboard`: outputs meet references, are judged, and every row is accounted for."""

import json
import warnings

import pytest

import alpacafarm
from alpacafarm.data.annotations import read_annotations
from alpacafarm.errors import SpecError
from alpacafarm.leaderboard import outputs as leaderboard_outputs
from alpacafarm.leaderboard.outputs import meet
from tests.unit.leaderboard.conftest import saved

N = 12


def references(**more):
    return [
        {"instruction": f"do {i}", "input": "with" * (i % 2), "output": f"base {i}", "generator": "davinci"}
        | more
        for i in range(N)
    ]


def outputs(*, merged=False, ids=False):
    rows = []
    for i in range(N):
        given = "with" * (i % 2)
        instruction = f"do {i}\n\n{given}" if merged and given else f"do {i}"
        row = {"instruction": instruction, "output": f"mine {i}", "generator": "x", "dataset": "d"}
        rows.append(row | ({} if merged else {"input": given}) | ({"id": f"r{i}"} if ids else {}))
    return rows


@pytest.fixture
def judge(tmp_path):
    """Knows all rows but the last; likes ours in two of three."""
    told = [
        {
            "instruction": f"do {i}",
            "input": "with" * (i % 2),
            "output_1": f"base {i}",
            "output_2": f"mine {i}",
            "preference": 1 + (i % 3 > 0),
        }
        for i in range(N - 1)
    ]
    return {"kind": "recorded", "path": str(saved(tmp_path / "told.jsonl", told))}


def leaderboard(*arguments, **more):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return alpacafarm.alpaca_leaderboard(*arguments, **more)


def test_a_file_of_outputs_gets_the_originals_columns_and_every_row_is_counted(tmp_path, judge):
    path = saved(tmp_path / "outputs.json", outputs())
    frame = leaderboard(path, judge, name="Mine", reference_outputs=references())
    assert list(frame.index) == ["Mine"]
    row = frame.loc["Mine"]
    assert [row[k] for k in ("n_total", "n_wins", "n_wins_base", "n_draws", "n_failures")] == [11, 7, 4, 0, 1]
    assert row["win_rate"] == pytest.approx(700 / 11)
    assert row["reference"] == "davinci"
    assert row["judge"] == "recorded:told.jsonl"
    assert row["length_controlled_win_rate"] is not None


def test_merged_instructions_meet_by_place_and_lose_no_row(judge):
    frame = leaderboard(outputs(merged=True), judge, reference_outputs=references())
    assert frame.loc["Current method", "n_total"] == 11


def test_outputs_of_a_dataframe_meet_by_id_in_whatever_order(judge):
    pandas = pytest.importorskip("pandas")
    told = [{**row, "id": f"r{i}"} for i, row in enumerate(references())]
    frame = leaderboard(pandas.DataFrame(outputs(ids=True)[::-1]), judge, reference_outputs=told)
    assert frame.loc["Current method", "n_wins"] == 7


def test_annotations_are_written_for_alpaca_eval_and_read_back_without_asking(tmp_path, judge):
    target = tmp_path / "annotations.json"
    first = leaderboard(outputs(), judge, reference_outputs=references(), annotations_path=target)
    told = json.loads(target.read_text())
    assert len(told) == N
    assert told[-1]["preference"] is None
    assert told[-1]["failure"] == "not recorded"
    assert told[1]["instruction"] == "do 1\n\nwith"
    assert {row["generator_1"] for row in told} == {"davinci"}
    again = leaderboard(None, annotations=target)
    assert again.to_dict() == first.to_dict()
    assert read_annotations(target)[0].judge == "recorded:told.jsonl"


def test_printing_also_returns(judge, capsys):
    frame = leaderboard(outputs(), judge, "Mine", False, True, reference_outputs=references())
    assert "judge recorded:told.jsonl, against davinci" in capsys.readouterr().out
    assert len(frame) == 1


def test_a_reference_without_an_output_is_a_failure_and_a_stranger_is_told(judge):
    told = [{**row, "id": f"r{i}"} for i, row in enumerate(references())]
    mine = [*outputs(ids=True)[1:], {"id": "new", "instruction": "other", "output": "x"}]
    with pytest.warns(UserWarning, match="12 references: 1 references without an output, 1 outputs without"):
        frame = alpacafarm.alpaca_leaderboard(mine, judge, reference_outputs=told)
    row = frame.loc["Current method"]
    assert (row["n_total"], row["n_failures"]) == (10, 2)


def test_rows_that_meet_but_differ_are_counted():
    mine = outputs()
    mine[3] = {**mine[3], "instruction": "something else"}
    with pytest.warns(UserWarning, match="1 outputs whose instruction is not that of their reference"):
        met = meet(references(), mine)
    assert len(met) == N
    assert met[3].instruction == "do 3"


def test_the_side_that_keeps_the_input_apart_is_asked_with():
    told = [{k: v for k, v in row.items() if k != "input"} for row in references()]
    for row in told[1::2]:
        row["instruction"] += "\n\nwith"
    (one,) = {m.input for m in meet(told, outputs())[1::2]}
    assert one == "with"


@pytest.mark.parametrize(
    ("mine", "message"),
    [
        (outputs()[:5], r"5 outputs and 12 references without an id cannot be told to belong together"),
        (outputs()[::-1], r"12 of 12 outputs have another instruction than the reference in their place"),
        ([{**row, "output": None} for row in outputs()], r"row 0: output=None must be text"),
    ],
)
def test_outputs_that_do_not_belong_to_the_references_are_refused(mine, message):
    with pytest.raises(ValueError, match=message):
        meet(references(), mine)


def test_an_id_that_comes_twice_is_refused():
    with pytest.raises(ValueError, match=r"outputs: row 1 has the id of an earlier row, a"):
        meet(references(id="a")[:1], [row | {"id": "a"} for row in outputs()[:2]])


def test_without_the_hub_it_says_what_to_pass(judge, monkeypatch):
    monkeypatch.setattr(leaderboard_outputs, "REFERENCES", "nowhere.json")
    monkeypatch.setattr(leaderboard_outputs, "table", absent)
    with pytest.raises(SpecError, match=r"reference_outputs=None: .*\(nowhere.json\); pass a file of"):
        leaderboard(outputs(), judge)


def absent(given):
    raise SpecError(f"{given}: cannot be fetched")


def test_published_rows_of_other_judges_are_not_put_beside(judge):
    with pytest.warns(UserWarning, match="adds nothing: the published rows have other judges"):
        frame = alpacafarm.alpaca_leaderboard(
            outputs(), judge, is_add_reference_methods=True, reference_outputs=references()
        )
    assert len(frame) == 1


def test_a_file_of_several_models_is_not_one_row(tmp_path):
    rows = [{"preference": 1, "generator_2": name} for name in ("x", "y")]
    with pytest.raises(SpecError, match=r"annotations=.*a\.json: has outputs of 2 models \(x, y\)"):
        alpacafarm.alpaca_leaderboard(None, annotations=saved(tmp_path / "a.json", rows))
