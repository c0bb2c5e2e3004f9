"""What the plan of the table says of machines, money and hours."""

import re
from pathlib import Path

import pytest

from alpacafarm.table2 import plan
from alpacafarm.table2.runs import Asked, planned


def told(capsys: pytest.CaptureFixture[str], scale: str, *overrides: str) -> str:
    asked = Asked(scale, (1,), ("dpo",), Path("table2"), (*overrides, "store=store"))
    plan.show(planned(asked), ())
    return capsys.readouterr().out


def row(text: str, stage: str) -> list[str]:
    found, *_ = re.findall(rf"^\d+ +{stage} .*$", text, re.MULTILINE)
    return re.split(r" {2,}", found.strip())


def test_a_job_has_nodes_gpus_memory_hours_calls_and_price(capsys):
    text = told(capsys, "7b", "human:eval=none", "eval/judge=alpaca_eval")
    nodes, gpus, calls, price = row(text, "judge outputs")[-4:]
    assert (nodes, gpus, calls) == ("1", "0", "4,025")  # 805 against references and four draws
    nodes, gpus, gib, hours = row(text, "compare")[-4:]
    assert (nodes, gpus) == ("1", "8")
    assert 1 < float(gib) < 20
    assert 0 <= float(hours) < 1
    assert re.fullmatch(r"[\d.]+ USD", price)
    assert f"4,025 judge calls, {price}" in text


def test_files_of_a_hub_are_told_by_name(capsys):
    text = told(capsys, "7b")
    assert "sft.json preference.json unlabeled.json" in text
    assert "hf://" not in text


def test_gpu_hours_have_a_price_where_there_is_one(capsys):
    free = told(capsys, "7b")
    assert "USD, " not in free.partition("machines:")[2].partition("\n")[0]
    priced = told(capsys, "7b", "cluster.speed.usd_per_gpu_hour=2")
    hours, usd = re.search(r"at most ([\d,]+) GPU hours, ([\d,]+) USD, ", priced).groups()
    assert int(usd) == pytest.approx(2 * int(hours), abs=1)


def test_jobs_that_nobody_knows_the_rows_of_are_counted_as_such(capsys):
    text = told(capsys, "7b", "data.expect=null")
    assert row(text, "sft")[-1] == "?"
    assert re.search(r"^machines: (\d+) jobs .*, and \1 stages of which nobody knows$", text, re.MULTILINE)


def test_this_machine_has_no_hours(capsys):
    text = told(capsys, "world")
    assert "machines:" not in text
    assert "hours: unknown; cluster.speed says" in text
    assert row(text, "dpo")[-5:-3] == ["1", "0"]
