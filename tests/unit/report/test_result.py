import json
import math
from dataclasses import replace

import pytest

from alpacafarm.report.result import Evaluation, Reading, Result, duration, measures, number

# The published layout of result.json: null stands for a value, a mapping for what lies below.
KEYS = {
    "name": None,
    "method": None,
    "feedback": None,
    "model": None,
    "data": None,
    "seed": None,
    "kl_coef": None,
    "eval": {
        "win_rate": None,
        "standard_error": None,
        "length_controlled_win_rate": None,
        "n_total": None,
        "n_wins": None,
        "n_wins_base": None,
        "n_draws": None,
        "avg_length": None,
        "judge": None,
        "reference": None,
        "length_controlled_standard_error": None,
    },
    "vs_sft": {"win_rate": None, "standard_error": None},
    "gold": {
        "win_rate": None,
        "standard_error": None,
        "score": None,
        "vs_sft": {"win_rate": None, "standard_error": None},
        "null": {"win_rate": None, "standard_error": None},
    },
    "reward_model_score": None,
    "kl_to_sft": None,
    "stages": {
        "name": None,
        "key": None,
        "kind": None,
        "state": None,
        "seconds": None,
        "folder": None,
        "went_on": None,
    },
    "outputs": None,
    "policy": None,
    "picked": None,
    "judge_calls": None,
    "price_usd": None,
    "seconds": None,
    "version": None,
}


def layout(value):
    if isinstance(value, list):
        first, *others = [*map(layout, value)] or [None]
        assert all(other == first for other in others)
        return first
    return {key: layout(part) for key, part in value.items()} if isinstance(value, dict) else None


def bare(**changes) -> Result:
    return replace(Result("x", "sft", None, "world", "world", 0), **changes)


def test_json_has_the_published_keys_in_their_order(result):
    found = layout(json.loads(result.to_json()))
    assert found == KEYS
    assert list(found) == list(KEYS)


def test_result_survives_a_round_trip(result):
    assert Result.from_json(result.to_json()) == result


def test_result_without_an_evaluation_survives_a_round_trip():
    assert Result.from_json(bare().to_json()) == bare()


def test_what_was_not_measured_is_null():
    raw = json.loads(bare().to_json())
    absent = ("feedback", "kl_coef", "eval", "vs_sft", "gold", "reward_model_score", "kl_to_sft", "outputs")
    assert set(raw) == set(KEYS)
    assert [raw[key] for key in absent] == [None] * len(absent)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_written_as_null(value):
    judged = Evaluation(50.0, value, value, 1, 0, 0, 1, 3.0, "world", "SFT")
    text = bare(kl_to_sft=value, eval=judged).to_json()
    assert not {"NaN", "Infinity", "-Infinity"} & set(text.replace(",", " ").split())
    assert json.loads(text)["kl_to_sft"] is None
    assert json.loads(text)["eval"]["standard_error"] is None


def test_numbers_are_numbers(result):
    raw = json.loads(result.to_json())
    numbers = [raw["seed"], raw["kl_coef"], raw["judge_calls"], raw["price_usd"], *raw["vs_sft"].values()]
    assert all(isinstance(value, int | float) for value in numbers)


def test_keys_of_a_later_version_are_passed_over(result):
    raw = json.loads(result.to_json())
    raw["eval"]["elo"] = raw["new"] = 1
    assert Result.from_json(json.dumps(raw)) == result


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", r"result.json holds a list; it must be an object with name, method"),
        ('{"name": "x"}', r"result.json, top level: .*'method'.*; was it written by another program\?"),
        ('{"name": "x", "stages": [{"name": "sft"}]}', r"result.json, stages: .*'key'"),
    ],
)
def test_another_programs_file_is_refused_with_the_place(text, message):
    with pytest.raises(ValueError, match=message):
        Result.from_json(text)


def test_every_rate_carries_its_own_error(result):
    found = {row.label: (row.value, row.standard_error, row.judge) for row in measures(result, Reading())}
    assert found["win rate vs reference"] == (61.37, 1.52, "world pool")
    assert found["win rate vs SFT"] == (63.12, 1.49, "world pool")
    assert found["gold vs reference"] == (58.91, 1.24, "gold")
    assert found["gold vs SFT"] == (60.05, 1.21, "gold")
    assert found["null (SFT redrawn)"] == (49.83, 1.18, "gold")


def test_errors_that_the_file_lacks_come_from_the_reading(result):
    reading = Reading(kl_estimator="k3", standard_errors={"kl_to_sft": 0.2})
    found = {row.label: row.standard_error for row in measures(result, reading)}
    assert found["KL to SFT (k3)"] == 0.2
    assert found["proxy reward"] is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.44, "0.4 s"),
        (12.3, "12 s"),
        (59.7, "1 min 00 s"),
        (200, "3 min 20 s"),
        (7500, "2 h 05 min"),
        (None, "-"),
    ],
)
def test_durations_read_like_durations(seconds, text):
    assert duration(seconds) == text


def test_a_missing_number_is_a_dash():
    assert [number(1.25, 1), number(None, 1), number(math.nan, 1)] == ["1.2", "-", "-"]


@pytest.mark.parametrize("part", ["kl_to_sft", "eval"])
def test_text_in_the_place_of_a_number_is_refused(result, part):
    raw = json.loads(result.to_json())
    raw |= {"kl_to_sft": "x"} if part == "kl_to_sft" else {"eval": {**raw["eval"], "win_rate": "x"}}
    with pytest.raises(ValueError, match=r"result\.json, .*: \w+='x' is no number"):
        Result.from_json(json.dumps(raw))
