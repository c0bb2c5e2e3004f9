"""Which runs stand for the table, and in which order."""

from dataclasses import replace
from pathlib import Path

import pytest

from alpacafarm.errors import SpecError
from alpacafarm.table2 import alone, plan, runs
from alpacafarm.table2.rows import COLUMNS, TRAINED
from alpacafarm.table2.runs import Asked


def asked(*rows, scale="world", seeds=(1,), overrides=()):
    return Asked(scale, tuple(seeds), rows, Path("table2"), ("store=nowhere", *overrides))


def test_each_column_has_its_feedback_and_its_judges():
    by_column = {item.column: item.job.spec for item in runs.planned(asked("ppo"))}
    assert by_column["sim"].feedback.name == "sim"
    assert by_column["human"].feedback.name == "human"
    pools = {column: spec.eval.judge.pool for column, spec in by_column.items()}
    assert pools == {"sim": "eval", "human": "human"}


def test_sft_and_the_base_model_are_one_model_in_both_columns():
    for row in ("sft10k", "sft52k", "base"):
        sim, human = runs.planned(asked(row))
        assert sim.job.plan.candidate.key == human.job.plan.candidate.key
        assert sim.job.plan.scores.key != human.job.plan.scores.key


def test_sft_52k_learns_all_splits():
    small, large = (runs.planned(asked(row))[0].job.plan.candidate for row in ("sft10k", "sft52k"))
    assert sorted(large.inputs) == ["init", "rows preference", "rows sft", "rows unlabeled"]
    assert sorted(small.inputs) == ["init", "rows sft"]


def test_a_seed_is_finished_before_the_next_and_shared_stages_come_early():
    items = runs.planned(asked("ppo", "best_of_n", "sft10k", "base", seeds=(3, 1)))
    assert [item.seed for item in items] == [3] * 8 + [1] * 8
    assert [item.row.name for item in items[:4]] == ["base", "base", "sft10k", "sft10k"]
    assert len({item.folder for item in items}) == len(items)
    assert items[0].folder == Path("table2/runs/world/3/sim/base")
    assert {stage.seed for stage in items[-1].job.plan.stages} == {1, 0}  # the data has no other seeds


def test_an_override_holds_for_every_run_and_wins():
    items = runs.planned(asked("ppo", "sft10k", overrides=("eval/judge=reward", "data.eval=100")))
    assert {item.job.spec.eval.judge.kind for item in items} == {"reward"}
    assert {item.job.spec.data.eval for item in items} == {100}


def test_paper_scale_has_the_published_values():
    specs = {(i.row.name, i.column): i.job.spec for i in runs.planned(asked("ppo", "best_of_n", scale="7b"))}
    ppo = specs["ppo", "sim"].method
    assert (ppo.kl_coef, specs["ppo", "human"].method.kl_coef) == (0.0067, 0.02)
    assert (ppo.steps, ppo.rollouts_per_step, ppo.optim.lr) == (390, 512, 1e-5)
    assert specs["best_of_n", "sim"].method.n == 16
    assert {spec.model.name for spec in specs.values()} == {"llama-7b"}


def test_the_papers_judge_unless_another_is_asked_for():
    for overrides, kind in [((), "pool"), (("eval/judge=reward",), "reward")]:
        items = runs.planned(asked("dpo", scale="7b", overrides=overrides))
        assert [item.job.spec.eval.judge.kind for item in items] == [kind] * 2
        prices = [sum(stage.bill.price_usd for stage in item.job.plan.stages) for item in items]
        assert all((price > 0) == (kind == "pool") for price in prices)


@pytest.mark.parametrize(
    ("scale", "overrides", "jobs"),
    [("world", (), 3), ("7b", ("cluster=local", "force=true"), 1), ("7b", (), 4)],
)
def test_as_many_runs_at_the_same_time_as_pay(monkeypatch, scale, overrides, jobs):
    """On this machine a core for each; in a queue they only wait."""
    monkeypatch.setattr(runs, "cores", lambda: 3)
    request = asked("sft10k", scale=scale, overrides=overrides)
    items = runs.planned(request)
    assert runs.suitable_jobs(request, items) == jobs
    assert runs.suitable_jobs(replace(request, jobs=2), items) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"overrides": ("sead=1",)}, r"^sead=1: there is no such key; did you mean seed"),
        ({"overrides": ("eval.sft_draws=0",)}, r"^eval\.sft_draws=0: must be at least 1"),
        ({"overrides": ("feedback=sim",)}, r"^feedback=sim: the table sets it for each run"),
        ({"overrides": ("seed",)}, r"^seed: cannot be read; write KEY=VALUE"),
        ({"seeds": (1, 1)}, r"^--seeds: at least one, and each another"),
        ({"seeds": (-1,)}, r"^seed=-1: must be at least 0"),
    ],
)
def test_what_is_wrong_is_found_before_anything_runs(changes, message):
    with pytest.raises(SpecError, match=message):
        runs.planned(asked("sft10k", "base", **changes))


def test_a_row_that_no_run_stands_for_is_refused():
    with pytest.raises(SpecError, match=r"^--rows gpt4: no run here stands for such a row; known: base, "):
        runs.planned(asked("gpt4"))


def test_own_stages_are_those_of_no_other_row_and_what_the_row_is_about():
    items = runs.planned(asked("sft10k", "best_of_n", "ppo"))
    own = alone.own_stages(items)
    names = {
        (item.row.name, item.column): sorted(
            s.name for s in item.job.plan.stages if s.key in own[item.folder]
        )
        for item in items
    }
    assert names["ppo", "sim"] == ["compare", "decode policy", "ppo", "rows unlabeled"]
    assert names["best_of_n", "sim"] == ["best_of_n", "compare", "sample 16"]
    assert names["sft10k", "human"] == ["compare", "decode policy", "sft"]


def test_the_bill_counts_each_stage_once():
    items = runs.planned(asked("sft10k", "best_of_n"))
    stages = {stage.key: stage for item in items for stage in item.job.plan.stages}
    told = plan.totals(list(stages.values()), dict.fromkeys(stages, "to do"))
    labels = 6000 + 12_000  # half of the simulated ones are coins
    verdicts = 2 * 805 + 2 * 5 * 805  # SFT has no SFT model to be compared with
    assert told[1] == f"to do: about {labels + verdicts:,} judge calls, 0.00 USD"
    done = plan.totals(list(stages.values()), dict.fromkeys(stages, "done"))
    assert done == [
        f"{len(stages)} stages, {len(stages)} of them done",
        "to do: about 0 judge calls, 0.00 USD",
    ]


def test_every_row_is_planned_in_every_column_at_every_scale():
    for scale in ("world", "smoke", "7b"):
        items = runs.planned(asked(*TRAINED, scale=scale))
        assert {(i.row.name, i.column) for i in items} == {(row, c) for row in TRAINED for c in COLUMNS}
