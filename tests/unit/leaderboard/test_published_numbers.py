"""AlpacaEval's published leaderboards from its raw annotations, where a checkout has them beside it."""

import gzip
import json
from pathlib import Path

import pytest

from tests.unit.leaderboard.conftest import saved

DATA = Path(__file__).parents[4] / "shared" / "data" / "alpaca_eval"
pytestmark = pytest.mark.skipif(
    not (DATA / "leaderboard_rows.json").is_file(),
    reason="AlpacaEval's outputs and annotations are not beside the checkout",
)
JUDGES = ("alpaca_eval_gpt4", "weighted_alpaca_eval_gpt4_turbo")
COUNTS = ("n_wins", "n_wins_base", "n_draws", "n_total")
DIFFICULTY = DATA / "instruction_difficulty_ESTIMATED.csv"


def read(name):
    return json.loads(gzip.decompress((DATA / name).read_bytes()))


@pytest.fixture(scope="module")
def published():
    return json.loads((DATA / "leaderboard_rows.json").read_text())


@pytest.mark.parametrize("judge", JUDGES)
def test_win_rates_errors_and_counts_are_the_published_ones(judge, published, board):
    files = sorted(DATA.glob(f"ann_{judge}_*.json.gz"))
    found = {row["name"]: row for row in board(*files)}
    assert len(found) == len(files) >= 7
    for name, row in found.items():
        expected = published[judge][name]
        for key in ("win_rate", "standard_error", "discrete_win_rate"):
            assert row[key] == pytest.approx(float(expected[key]), abs=1e-6), (name, key)
        assert [row[key] for key in COUNTS] == [int(expected[key]) for key in COUNTS], name
        assert row["n_total"] + row["n_failures"] == 805
        assert int(row["avg_length"]) == int(expected["avg_length"])


def test_files_with_texts_as_alpaca_eval_writes_them_give_the_same(tmp_path, published, board):
    references = {row["index"]: row for row in read("eval_instructions_text_davinci_003.json.gz")}
    answers = {row["index"]: row["output"] for row in read("outputs_wizardlm-13b.json.gz")}
    told = [
        {
            "instruction": references[row["index"]]["instruction"],
            "output_1": references[row["index"]]["output"],
            "generator_1": "text_davinci_003",
            "output_2": answers[row["index"]],
            "generator_2": "wizardlm-13b",
            "annotator": row["annotator"],
            "preference": row["preference"],
        }
        for row in read("ann_alpaca_eval_gpt4_wizardlm-13b.json.gz")
    ]
    (found,) = board(saved(tmp_path / "annotations.json.gz", told))
    assert found["win_rate"] == pytest.approx(
        float(published[JUDGES[0]]["wizardlm-13b"]["win_rate"]), abs=1e-6
    )


def fitted_models(published):
    return [name for name in published["length_controlled_v1_weights"] if name != "gpt4_1106_preview"]


def weighted_files(published):
    return [DATA / f"ann_{JUDGES[1]}_{name}.json.gz" for name in fitted_models(published)]


def length_controlled(published, judge=JUDGES[1]):
    return {
        name: float(row["length_controlled_winrate"])
        for name, row in published[judge].items()
        if row["length_controlled_winrate"]
    }


def ranking(rates):
    return sorted(rates, key=lambda name: -rates[name])


def test_published_weights_give_the_published_length_controlled_rates(tmp_path, published, board):
    weights = saved(tmp_path / "weights.json", published["length_controlled_v1_weights"])
    told = board(*weighted_files(published), "--difficulty", DIFFICULTY, "--weights", weights)
    found = {row["name"]: row["length_controlled_win_rate"] for row in told}
    expected = {name: length_controlled(published)[name] for name in found}
    assert len(found) == 6
    assert found == pytest.approx(expected, abs=0.15)
    assert ranking(found) == ranking(expected)


def test_refitted_length_controlled_rates_are_near_the_published_and_rank_the_same(published, board):
    told = board(*weighted_files(published), "--difficulty", DIFFICULTY)
    found = {row["name"]: row["length_controlled_win_rate"] for row in told}
    expected = {name: length_controlled(published)[name] for name in found}
    assert sum(abs(found[n] - expected[n]) for n in found) / len(found) < 0.6
    assert ranking(found) == ranking(expected)
    for row in told:
        assert (
            abs(row["length_controlled_win_rate"] - expected[row["name"]])
            < 2 * row["length_controlled_standard_error"]
        )


def test_models_that_estimate_the_difficulty_together_are_near_the_published_and_rank_the_same(
    published, board
):
    """Of the first leaderboard, whose baseline is about as long as the models."""
    expected = length_controlled(published, JUDGES[0])
    told = board(*(DATA / f"ann_{JUDGES[0]}_{name}.json.gz" for name in expected))
    found = {row["name"]: row["length_controlled_win_rate"] for row in told}
    assert {row["length_controlled_difficulty"] for row in told} == {"estimated"}
    assert sum(abs(found[n] - expected[n]) for n in found) / len(found) < 1.0
    assert ranking(found) == ranking(expected)
