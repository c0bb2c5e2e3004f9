"""The arithmetic of the table, on results made by hand."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from alpacafarm.report.result import Evaluation, Gold, Rate, Result
from alpacafarm.stats.rank import Measured
from alpacafarm.table2 import page, table
from alpacafarm.table2.rows import COLUMNS, ROWS, TRAINED
from alpacafarm.table2.runs import Outcome, Planned


@dataclass(frozen=True)
class NoPlan:
    stages: tuple = ()
    candidate: object = None
    scores: object = None


@dataclass(frozen=True)
class NoJob:
    plan: NoPlan = NoPlan()


@pytest.fixture(autouse=True)
def no_artifacts(monkeypatch):
    """These results have no stages."""
    monkeypatch.setattr(table, "seconds_alone", lambda outcomes: {Path("1/sim/ppo"): 90.0})


def outcome(row, column, seed, rate=None, *, error=1.5, gold=50.0, failure=None, judge="world-eval"):
    planned = Planned(TRAINED[row], column, seed, NoJob(), Path(f"{seed}/{column}/{row}"))
    if rate is None:
        return Outcome(planned, failure=failure)
    result = replace(
        Result("x", row, column, "world", "world", seed),
        eval=Evaluation(rate, error, None, 805, 1, 1, 1, 100.0 + seed, judge, "reference"),
        vs_sft=Rate(rate + 5, 1.0),
        gold=Gold(gold, 1.0, 0.0, Rate(gold + 1, 1.0), Rate(49.0, 1.0)),
        kl_to_sft=2.0,
    )
    return Outcome(planned, result)


def made(*outcomes, seeds=(1, 2)):
    return table.table("world", seeds, outcomes)


def test_a_cell_has_the_mean_over_seeds_and_both_errors():
    shown = made(outcome("ppo", "sim", 1, 40.0, error=1.0), outcome("ppo", "sim", 2, 46.0, error=2.0))
    cell = shown.entries["ppo", "sim"].cells["win_rate"]
    assert cell.mean == 43.0
    assert cell.over_instructions == 1.5
    assert cell.over_seeds == pytest.approx(3.0)  # sd sqrt(18), over sqrt(2)
    assert cell.error == pytest.approx(math.sqrt(1.5**2 + 3.0**2))
    length = shown.entries["ppo", "sim"].cells["avg_length"]
    assert (length.mean, length.over_instructions, length.over_seeds) == (101.5, None, 0.5)


def test_one_seed_has_no_error_over_seeds():
    cell = made(outcome("ppo", "sim", 1, 40.0)).entries["ppo", "sim"].cells["win_rate"]
    assert cell.over_seeds is None
    assert cell.error == 1.5
    assert page.cell_text(cell, 1) == "40.0 ± 1.5"


def test_failed_and_waiting_seeds_are_told_and_leave_the_others_alone():
    shown = made(
        outcome("ppo", "sim", 1, 40.0),
        outcome("ppo", "sim", 2, failure="stage ppo failed"),
        outcome("sft10k", "sim", 1),
    )
    entry = shown.entries["ppo", "sim"]
    assert (entry.seeds, dict(entry.failed), entry.waiting) == ((1,), {2: "stage ppo failed"}, ())
    assert entry.cells["win_rate"].mean == 40.0
    assert shown.entries["sft10k", "sim"].waiting == (1,)
    assert "1 runs done, 1 failed, 1 to come" in page.summary(shown)[0]
    told = page.markdown(shown)
    assert "- PPO on sim, seed 2: stage ppo failed" in told
    assert "1 of 2" in told


def test_ranks_count_from_the_best_and_ties_share_their_places():
    values = {name: Measured(mean, 1.0) for name, mean in {"a": 10, "b": 30, "c": 20, "d": 20}.items()}
    assert table.ranking(values) == {"a": 4, "b": 1, "c": 2.5, "d": 2.5}


def test_published_correlation_of_the_columns_is_the_papers():
    """method_corr.png gives 0.98 over the rows that have both numbers."""
    columns = {f"paper, {column}": table.published(column) for column in COLUMNS}
    found = table.agreement("paper, sim", "paper, human", columns)
    assert len(found.methods) == 10
    assert found.ranks.spearman.estimate == pytest.approx(0.976, abs=5e-4)
    assert found.ranks.spearman.low < 0.976 <= found.ranks.spearman.high


def test_orders_are_compared_over_the_methods_that_both_columns_have():
    rates = {"ppo": 50.0, "best_of_n": 45.0, "sft10k": 30.0, "base": 10.0}
    sim = [outcome(row, "sim", 1, rate, gold=-rate) for row, rate in rates.items()]
    human = [outcome(row, "human", 1, rate) for row, rate in list(rates.items())[:3]]
    shown = made(*sim, *human)
    found = {(a.first, a.second): a for a in shown.agreements}
    assert found["ours, sim", "ours, human"].methods == ("ppo", "best_of_n", "sft10k")
    assert found["ours, sim", "ours, human"].ranks.kendall_tau_b.estimate == 1.0
    assert found["ours, sim", "gold, sim"].ranks.spearman.estimate == -1.0
    assert found["ours, sim", "paper, sim"].ranks.spearman.estimate == 1.0
    assert shown.ranks["ours, sim"] == {"ppo": 1, "best_of_n": 2, "sft10k": 3, "base": 4}
    assert ("gold, sim", "gold, human") in found
    two = made(*sim[:2], *human[:2])
    assert ("ours, sim", "ours, human") not in {(a.first, a.second) for a in two.agreements}


def test_every_row_of_the_paper_is_in_the_table_and_ours_beside_it():
    shown = made(outcome("ppo", "sim", 1, 40.0), outcome("ppo", "human", 1, 42.0, judge="world-human"))
    told = page.markdown(shown)
    lines = {line.split(" | ")[0].strip("| "): line for line in told.splitlines() if line.startswith("| ")}
    assert set(lines) >= {row.label for row in ROWS}
    assert "| 46.8 ± 1.8 (3.5) | 40.0 ± 1.5 (1) | 50.0 ± 1.0 (1) | 55.1 ± 1.7 (2) | 42.0 ± 1.5 (1) |" in told
    assert "judge, sim: world-eval" in told
    assert "judge, human: world-human" in told
    assert "1 min 30 s" in told


def test_json_has_numbers_as_numbers_and_the_source_of_the_papers():
    told = table.as_json(made(outcome("ppo", "sim", 1, 40.0)))
    rows = {row["row"]: row for row in told["rows"]}
    assert rows["ppo"]["paper"]["human"] == {
        "win_rate": 55.1,
        "standard_error": 1.7,
        "source": "results_table.png",
    }
    assert rows["dpo"]["paper"]["human"] is None
    assert rows["ppo"]["ours"]["sim"]["cells"]["win_rate"] == {
        "mean": 40.0,
        "over_instructions": 1.5,
        "over_seeds": None,
    }
    assert rows["ppo"]["ours"]["human"] is None
    assert rows["gpt4"]["overrides"] is None


def test_page_is_whole_and_escapes_what_failed():
    html = page.html(made(outcome("ppo", "sim", 1, 40.0), outcome("ppo", "human", 1, failure="<script>")))
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "40.0 ± 1.5" in html
    assert 'aria-label="Paper"' in html
