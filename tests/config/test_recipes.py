"""The recipes for the paper's artifacts: at both scales, and the same runs as those of the table."""

from pathlib import Path

import pytest

from alpacafarm.table2 import runs
from alpacafarm.table2.rows import COLUMNS, ROWS, TRAINED
from alpacafarm.table2.runs import Asked

RECIPES = Path(__file__).parents[2] / "recipes"
OF_A_ROW = {f"{name}_{column}": (name, column) for name in TRAINED for column in ("sim", "human")}
OF_A_ROW |= {f"best_of_16_{column}": ("best_of_n", column) for column in ("sim", "human")}
ASKED = {"gpt4": 500, "chatgpt": 1000, "davinci001": None}  # through an API, and the most characters
IN_BOTH = ("sft10k", "sft52k", "base", *ASKED)  # one model has both numbers
OF_A_ROW |= {name: (name, "sim") for name in IN_BOTH}
OF_ROWS = {row.name: row for row in ROWS}
FOUND = {path.stem for path in RECIPES.glob("*.yaml")}
PAPER = sorted(FOUND & set(OF_A_ROW))
SCALES = {"world": (), "7b": ("model=llama-7b", "data=alpaca_farm")}


def test_every_published_number_has_its_recipe():
    """Of rows whose model was trained on human feedback only where the paper has a human number."""
    by_row = {place: recipe for recipe, place in OF_A_ROW.items() if recipe in FOUND}
    for row in ROWS:
        assert (row.name, "sim") in by_row
        if row.human and row.name not in IN_BOTH:
            assert (row.name, "human") in by_row


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("recipe", [recipe for recipe in PAPER if recipe not in ASKED])
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
    row, its_column = OF_A_ROW[recipe]
    (line,) = (text for text in (RECIPES / "README.md").read_text().splitlines() if f"`{recipe}`" in text)
    for column in COLUMNS if recipe in IN_BOTH else (its_column,):
        paper = OF_ROWS[row].paper(column)
        told = f"{paper.win_rate} ± {paper.standard_error}"
        assert told in (RECIPES / f"{recipe}.yaml").read_text()
        assert f"{column} {told}" in line


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("recipe", ASKED)
def test_models_behind_an_api_are_asked_as_the_paper_did(job, recipe, scale):
    priced = ("api.endpoints.openai.free=true",) if recipe == "davinci001" else ()
    made = job(f"recipe={recipe}", *SCALES[scale], *priced)
    asked, most = made.spec.method, ASKED[recipe]
    assert made.plan.candidate.name == "ask"
    assert asked.system == (None if most is None else f"Answer in less than {most} characters.")
    assert (asked.interface == "completion") == (most is None)
    assert (asked.template, asked.sampling.temperature, asked.sampling.top_p) == ("alpaca", 0.7, 1.0)


def test_ppo_on_gpt_4s_labels_reads_the_released_ones_as_they_are(job):
    made, of_the_pool = (job(f"recipe={name}", *SCALES["7b"]) for name in ("ppo_sim_gpt4_20k", "ppo_sim"))
    pairs = next(stage for stage in made.plan.stages if stage.name == "pairs")
    assert pairs.inputs["file"].location.endswith("/alpaca_gpt4_preference.json")
    assert made.spec.feedback.flip_probability == 0
    assert made.spec.method == of_the_pool.spec.method
    assert made.spec.model == job("recipe=ppo_sim_gpt4_20k").spec.model


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
