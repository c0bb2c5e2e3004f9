"""The command on small files: what is counted, what is kept apart, what is refused."""

import json
import random
import re
import subprocess
import sys

import pytest

from alpacafarm.leaderboard.__main__ import main
from alpacafarm.stats.winrate import win_rate
from tests.unit.leaderboard.conftest import rows, saved

KEYS = (
    "name win_rate standard_error n_wins n_wins_base n_draws n_total discrete_win_rate "
    "length_controlled_win_rate avg_length judge"
)


def test_every_key_of_the_contract_is_there_and_every_row_accounted_for(tmp_path, board):
    (found,) = board(saved(tmp_path / "annotations.json", rows()))
    assert set(KEYS.split()) <= set(found)
    expected = win_rate([2, 2, 1, 1.5, None])
    assert found["win_rate"] == expected.win_rate
    assert found["standard_error"] == expected.standard_error
    assert [found[k] for k in ("n_wins", "n_wins_base", "n_draws", "n_total", "n_failures")] == [
        2,
        1,
        1,
        4,
        1,
    ]
    assert found["failures"] == {"no verdict": 1}
    assert (found["name"], found["judge"], found["reference"]) == ("m", "j", "b")
    assert found["avg_length"] == (1 + 4 + 7 + 10 + 13) / 5
    assert found["length_controlled_win_rate"] is None
    assert "4 rows with a verdict and lengths; at least 10" in found["length_controlled_reason"]


def test_failures_are_counted_by_their_kind(tmp_path, board):
    told = rows(preferences=[2, None, None, None])
    told[1]["failure"], told[2]["failure"] = "refused: too long", "refused: other"
    (found,) = board(saved(tmp_path / "a.json", told))
    assert found["failures"] == {"no verdict": 1, "refused": 2}


def test_models_are_sorted_by_win_rate_and_judges_and_references_never_share_a_table(tmp_path, board, capsys):
    files = [
        saved(tmp_path / "1.json", rows("low", [1, 1, 2])),
        saved(tmp_path / "2.json.gz", rows("high", [2, 2, 1])),
        saved(tmp_path / "3.jsonl", rows("high", [1, 1, 1], judge="other")),
        saved(tmp_path / "4.json", rows("low", [2, 2, 2], baseline="b2")),
    ]
    told = [(r["judge"], r["reference"], r["name"]) for r in board(*files)]
    assert told == [("j", "b", "high"), ("j", "b", "low"), ("j", "b2", "low"), ("other", "b", "high")]
    assert main([str(path) for path in files]) == 0
    printed = capsys.readouterr().out
    for title in ("judge j, against b\n", "judge j, against b2\n", "judge other, against b\n"):
        assert printed.count(title) == 1


def test_old_ties_are_zero_and_nan_is_a_failure(tmp_path, board):
    text = json.dumps(rows(preferences=[0, 1.5, float("nan")]))
    (found,) = board(saved(tmp_path / "a.json", text))
    assert (found["n_draws"], found["n_total"], found["n_failures"]) == (2, 2, 1)


def test_a_model_without_any_verdict_is_shown_with_none(tmp_path, board, capsys):
    path = saved(tmp_path / "a.json", rows(preferences=[None, None]))
    (found,) = board(path)
    assert (found["win_rate"], found["n_total"], found["n_failures"]) == (None, 0, 2)
    assert main([str(path)]) == 0
    assert "m: rows without a verdict, which are not in the total: 2 no verdict" in capsys.readouterr().out


def test_files_of_one_model_and_judge_go_together_where_their_rows_are_others(tmp_path, board):
    first, second = rows(preferences=[2, 2]), rows(preferences=[1, 1, 2, 2])[2:]
    (found,) = board(saved(tmp_path / "1.json", first), saved(tmp_path / "2.json", second))
    assert found["n_total"] == 4
    (found,) = board(
        saved(tmp_path / "1.json", [{**row, "id": f"x{i}"} for i, row in enumerate(first)]),
        saved(tmp_path / "2.json", [{**row, "id": f"y{i}"} for i, row in enumerate(second)]),
    )
    assert found["n_total"] == 4


def test_a_pair_that_was_judged_twice_is_one_row(tmp_path, board):
    files = [saved(tmp_path / f"{i}.json", rows(preferences=[2, p])) for i, p in enumerate([2, 1])]
    (found,) = board(*files)
    assert (found["n_total"], found["win_rate"], found["n_draws"]) == (2, 75, 1)


def test_other_answers_under_one_name_are_another_model(tmp_path, board):
    files = [saved(tmp_path / f"{i}.json", rows(preferences=[2, 1], answer=f"a{i}")) for i in range(2)]
    names = [found["name"] for found in board(*files)]
    assert names == ["m", f"m ({files[1]})"]


def test_two_baselines_of_one_name_are_kept_apart(tmp_path, board):
    other = [{**row, "output_1": "else"} for row in rows("n", [2, 1])]
    found = board(saved(tmp_path / "1.json", rows(preferences=[2, 1])), saved(tmp_path / "2.json", other))
    assert [(f["reference"], f["name"]) for f in found] == [("b", "m"), ("b, set 2", "n")]


def test_annotators_that_read_other_rows_are_a_pool_and_those_that_read_the_same_are_judges(tmp_path, board):
    told = rows(preferences=[2, 1, 2, 1])
    pooled = [{**row, "annotator": f"a{i % 2}"} for i, row in enumerate(told)]
    assert [found["judge"] for found in board(saved(tmp_path / "1.json", pooled))] == ["pool of a0, a1"]
    both = [{**row, "annotator": name, "index": i} for name in ("a0", "a1") for i, row in enumerate(told)]
    assert [found["judge"] for found in board(saved(tmp_path / "2.json", both))] == ["a0", "a1"]
    named = [{**row, "judge": "the pool"} for row in pooled]
    assert [found["judge"] for found in board(saved(tmp_path / "3.json", named))] == ["the pool"]


def test_rows_that_name_nobody_get_a_judge_of_their_own_or_the_one_that_is_told(tmp_path, board):
    files = []
    for i in range(2):
        told = [{k: v for k, v in row.items() if k != "annotator"} for row in rows(f"m{i}", [2, 1])]
        files.append(saved(tmp_path / f"{i}.json", told))
    assert [found["judge"] for found in board(*files)] == [f"unknown ({path})" for path in files]
    assert {found["judge"] for found in board(*files, "--judge", "me")} == {"me"}


def test_a_file_without_names_is_called_after_itself(tmp_path, board):
    bare = [{k: row[k] for k in ("output_1", "output_2", "preference", "annotator")} for row in rows()]
    assert board(saved(tmp_path / "gpt-3.5.json.gz", bare))[0]["name"] == "gpt-3.5"
    path = saved(tmp_path / "results" / "llama" / "j" / "annotations.json", bare)
    assert board(path)[0]["name"] == "llama"
    assert board(tmp_path / "results")[0]["name"] == "llama"
    assert board(saved(tmp_path / "ann_j_claude.json", bare))[0]["name"] == "claude"


def broken(**changes):
    told = rows()
    told[2] = {**told[2], **changes}
    return told


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", broken(preference=3), r"a.json: row 3: preference=3 must be 1, 2, 1.5 \(or 0\)"),
        ("a.json", broken(preference=True), r"row 3: preference=True must be"),
        ("a.jsonl", broken(preference="2"), r"a.jsonl:3: preference='2' must be"),
        ("a.json", broken(output_2=7), r"row 3: output_2=7 must be text"),
        ("a.json", [*rows(), "x"], r"row 6: holds a str; an annotation has preference, output_1"),
        ("a.json", [{"x": 1}], r"row 1: has no preference; .* the row has x"),
        (
            "a.json",
            [{"instruction": "q", "output": "o"}],
            r"a model's outputs, which nobody has judged; .*alpaca_",
        ),
        ("a.json", "{", r"a.json: not JSON"),
        ("a.json", "[]", r"a.json: the file has no rows"),
        ("a.json.gz", "PLAIN", r"a.json.gz: not packed with gzip"),
    ],
)
def test_malformed_rows_are_refused_with_file_row_and_reason(tmp_path, refused, name, content, message):
    path = tmp_path / name
    if content == "PLAIN":
        path.write_text("[]")
    else:
        saved(path, content)
    assert re.search(message, refused(path))


def test_places_without_annotations_are_refused(tmp_path, refused):
    assert "no/where: there is no such file or folder" in refused("no/where")
    assert "no run and no annotations.json below" in refused(tmp_path)


def judged_by_length(model, length, seed=0, n=60):
    rng = random.Random(seed)
    told = rows(model, [1] * n)
    for row in told:
        row["output_1"], row["output_2"] = "b" * rng.randint(50, 150), "m" * rng.randint(50, 150 + length)
        row["preference"] = 1 + (len(row["output_2"]) + rng.gauss(0, 20) > len(row["output_1"]))
    return told


def test_length_control_takes_back_what_length_alone_won(tmp_path, board):
    path = saved(tmp_path / "a.json", judged_by_length("m", 100, n=300))
    (found,) = board(path)
    assert found["win_rate"] > 65
    assert found["length_controlled_win_rate"] == pytest.approx(50, abs=6)
    assert found["length_controlled_standard_error"] < 6
    assert found["length_controlled_difficulty"] == "none"
    assert board(path, "--no-length-control")[0]["length_controlled_win_rate"] is None


def test_difficulties_belong_to_one_evaluation_set(tmp_path, board, refused):
    path = saved(tmp_path / "a.json", judged_by_length("m", 20))
    numbers = saved(
        tmp_path / "d.csv", ",instruction_difficulty\n" + "".join(f"{i},0.5\n" for i in range(60))
    )
    (found,) = board(path, "--difficulty", numbers)
    assert found["length_controlled_difficulty"] == "given"
    short = saved(tmp_path / "short.csv", "0.5\n0.25\n")
    assert "2 difficulties, and there is a row 3" in refused(path, "--difficulty", short)
    assert "no table of difficulties" in refused(
        path, "--difficulty", saved(tmp_path / "x.csv", "a,b\nc,d\n")
    )


def test_published_weights_give_the_win_rate_that_they_stand_for(tmp_path, board, refused):
    path = saved(tmp_path / "a.json", judged_by_length("m", 20))
    difficulty = saved(tmp_path / "d.csv", "0.0\n" * 60)
    head = ",np.tanh(std_delta_len),instruction_difficulty,not_gamed_baseline.astype(float)\n"
    weights = saved(tmp_path / "w.csv", head + "m,-2,1,1.0986122886681098\nb,0,0,0\n")
    (found,) = board(path, "--difficulty", difficulty, "--weights", weights)
    assert found["length_controlled_win_rate"] == pytest.approx(75)  # odds of 3
    assert found["length_controlled_standard_error"] is None
    wrong = saved(tmp_path / "wrong.csv", "model,weight\nm,1\n")
    assert "no weights of models" in refused(path, "--difficulty", difficulty, "--weights", wrong)


def test_head_to_head_has_paired_differences_and_a_matrix_that_is_antisymmetric(tmp_path, board, capsys):
    files = [
        saved(tmp_path / "1.json", rows("x", [2, 2, 1, 2] * 5)),
        saved(tmp_path / "2.json", rows("y", [2, 1, 1, 1] * 5)),
        saved(tmp_path / "3.json", rows("x", [2, 1.5, 2, 2] * 5, baseline="y")),
    ]
    told = board(*files, "--head-to-head")
    one, other = told["differences"]
    assert (one["name"], one["less"], one["estimate"], one["n_better"], one["n_ties"]) == (
        "x",
        "y",
        50,
        10,
        10,
    )
    assert (other["estimate"], other["low"]) == (-50, -one["high"])
    cells = {(c["name"], c["preferred_to"]): c["win_rate"] for c in told["head_to_head"]}
    assert cells["x", "y"] == 87.5
    assert all(rate + cells[b, a] == 100 for (a, b), rate in cells.items())
    assert main([*map(str, files), "--head-to-head"]) == 0
    printed = capsys.readouterr().out
    assert "differences of win rates, judge j, against b" in printed
    assert "head to head in percent, judge j" in printed


def test_agreement_with_a_gold_file_is_told_for_each_judge(tmp_path, board, refused, capsys):
    gold = saved(tmp_path / "gold.json", rows(preferences=[2, 2, 1, 1], judge="people"))
    same = saved(tmp_path / "1.json", rows(preferences=[2, 2, 1, None], judge="same"))
    half = saved(tmp_path / "2.json", rows(preferences=[2, 1, 1, 2], judge="half"))
    told = board(same, half, "--agreement", gold)["agreement"]
    assert [(one["judge"], one["agreement"], one["n_pairs"]) for one in told] == [
        ("same", 100, 3),
        ("half", 50, 4),
    ]
    assert told[1]["bias"] == 50
    assert told[1]["variance"] is None
    assert main([str(half), "--agreement", str(gold)]) == 0
    assert "agreement, %" in capsys.readouterr().out
    other = saved(tmp_path / "other.json", rows(preferences=[2], answer="x", judge="people", id="other"))
    assert "judges none of the pairs" in refused(half, "--agreement", other)


@pytest.mark.parametrize("nothing", [float("nan"), None, ""])
def test_an_identity_that_is_missing_makes_no_rows_one(tmp_path, board, nothing):
    (found,) = board(saved(tmp_path / "a.json", rows(id=nothing)))
    assert found["n_total"] == 4


def test_names_that_are_missing_in_a_data_frame_are_none(tmp_path, board):
    (found,) = board(saved(tmp_path / "a.json", rows(float("nan"))))
    assert found["name"] == "a"


def test_one_identity_for_two_instructions_is_refused(tmp_path, refused):
    said = refused(saved(tmp_path / "a.json", rows(id=7)))
    assert "row 2: id (or index) 7 is that of an earlier row with another instruction; give each" in said


def test_annotators_of_the_same_texts_are_judges_also_without_identities(tmp_path, board):
    found = board(saved(tmp_path / "a.json", rows(judge="x") + rows(judge="y")))
    assert [one["judge"] for one in found] == ["x", "y"]
    assert [one["n_total"] for one in found] == [4, 4]


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_difficulties_and_weights_must_be_finite(tmp_path, refused, number):
    path = saved(tmp_path / "a.json", rows())
    wrong = saved(tmp_path / "d.csv", f"{number}\n" * 5)
    assert f"no table of difficulties (ValueError: {number} is no" in refused(path, "--difficulty", wrong)
    good = saved(tmp_path / "good.csv", "1\n" * 5)
    head = ",instruction_difficulty,not_gamed_baseline.astype(float)\n"
    wrong = saved(tmp_path / "w.csv", f"{head}m,1,{number}\n")
    assert f"{number} is no finite" in refused(path, "--difficulty", good, "--weights", wrong)
    wrong = saved(tmp_path / "w.json", "[" * 100_000)
    assert "no weights of models" in refused(path, "--difficulty", good, "--weights", wrong)


def test_an_identity_that_only_looks_like_a_place_is_none(tmp_path, board):
    numbers = saved(tmp_path / "d.csv", "0.5\n" * 5)
    for identity in ("\u00b2", "9" * 5000):
        (found,) = board(
            saved(tmp_path / "a.json", rows(preferences=(2,), id=identity)), "--difficulty", numbers
        )
        assert found["n_total"] == 1


def test_half_a_surrogate_pair_is_shown_and_written(tmp_path):
    path = saved(tmp_path / "a.json", rows("m\ud83d", answer="\udc00"))
    command = [sys.executable, "-m", "alpacafarm.leaderboard", str(path), "--export", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "m\\ud83d" in done.stdout
    (written,) = (tmp_path / "out").rglob("annotations.json")
    assert json.loads(written.read_text())[2]["output_2"] == "\udc00\udc002"
