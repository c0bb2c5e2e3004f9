"""The recipes for the paper's artifacts: at both scales, and the same runs as those of the table."""

from pathlib import Path

import pytest

from alpacafarm.table2 import runs
from alpacafarm.table2.rows import ROWS, TRAINED
from alpacafarm.table2.runs import Asked

RECIPES = Path(__file__).parents[2] / "recipes"
OF_A_ROW = {f"{name}_{column}": (name, column) for name in TRAINED for column in ("sim", "human")}
OF_A_ROW |= {f"best_of_16_{column}": ("best_of_n", column) for column in ("sim", "human")}
OF_A_ROW |= {name: (name, "sim") for name in ("sft10k", "sft52k")}
FOUND = {path.stem for path in RECIPES.glob("*.yaml")}
PAPER = sorted(FOUND & set(OF_A_ROW))
SCALES = {"world": (), "7b": ("model=llama-7b", "data=alpaca_farm")}


def test_every_published_number_has_its_recipe():
    """Of rows whose model was trained on human feedback only where the paper has a human number."""
    by_row = {place: recipe for recipe, place in OF_A_ROW.items() if recipe in FOUND}
    for row in (row for row in ROWS if row.overrides and row.name != "base"):
        assert (row.name, "sim") in by_row
        if row.human and not row.name.startswith("sft"):
            assert (row.name, "human") in by_row


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("recipe", PAPER)
def test_a_recipe_is_the_run_of_its_row(job, recipe, scale):
    row, column = OF_A_ROW[recipe]
    made = job(f"recipe={recipe}", *SCALES[scale], "seed=3", "store=store")
    of_row = next(
        item
        for item in runs.planned(Asked(scale, (3,), (row,), Path("table2"), ("store=store",)))
        if item.column == column
    )
    assert made.plan.candidate.key == of_row.job.plan.candidate.key


@pytest.mark.parametrize("recipe", ["reward_sim", "reward_human"])
def test_reward_models_are_planned_at_the_papers_scale(job, recipe):
    made = job(f"recipe={recipe}", *SCALES["7b"])
    assert [stage.name for stage in made.plan.stages][-2:] == ["pairs", "rm"]


@pytest.mark.parametrize("recipe", PAPER)
def test_the_published_number_stands_in_recipe_and_readme(recipe):
    row, column = OF_A_ROW[recipe]
    paper = TRAINED[row].paper(column)
    told = f"{paper.win_rate} ± {paper.standard_error}"
    assert told in (RECIPES / f"{recipe}.yaml").read_text()
    (line,) = (text for text in (RECIPES / "README.md").read_text().splitlines() if f"`{recipe}`" in text)
    assert f"{column} {told}" in line


def test_readme_lists_every_recipe():
    told = (RECIPES / "README.md").read_text()
    assert [name for name in sorted(FOUND) if f"`{name}`" not in told] == []


def test_a_sweep_over_optimisation_shares_what_it_trains_and_samples(job):
    ppo = [
        job("recipe=overoptimisation", f"method.pick.step={step}", f"kl_coef={kl}", "store=store").plan
        for step in (4, 64)
        for kl in (0.0, 0.0067)
    ]
    trained = {stage.key for plan in ppo for stage in plan.stages if stage.name == "ppo"}
    assert len(trained) == 2
    assert len({plan.candidate.key for plan in ppo}) == 4
    best = [
        job("recipe=overoptimisation_best_of_n", f"method.n={n}", f"feedback.flip_probability={p}").plan
        for n in (1, 64)
        for p in (0.25, 0.0)
    ]
    assert len({s.key for plan in best for s in plan.stages if s.name == "sample 64"}) == 1
    assert len({plan.candidate.key for plan in best}) == 4
