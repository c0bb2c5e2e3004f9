"""Means over seeds in the table of several runs."""

import json
import math
import statistics

import pytest

from alpacafarm.report import comparison, folder, over_seeds
from tests.unit.report.test_comparison import make, read, result, spec

RATES = {("0.002", 1): 30.0, ("0.002", 2): 36.0, ("0.002", 3): 33.0, ("0.02", 1): 40.0}


@pytest.fixture
def sweep(tmp_path):
    for number, ((kl_coef, seed), rate) in enumerate(RATES.items()):
        asked = [f"kl_coef={kl_coef}", f"seed={seed}"]
        make(tmp_path / str(number), asked, spec(4, float(kl_coef), seed=seed), result(rate, proxy=seed / 8))
    make(tmp_path / "4", ["kl_coef=0.02", "seed=2"], spec(4, 0.02, seed=2), failure="no memory")
    return tmp_path


def test_runs_that_differ_in_the_seed_alone_are_one_line(sweep):
    runs = read(sweep)
    heads, lines = over_seeds.cells(over_seeds.averaged(runs), comparison.columns(runs))
    assert [line[:2] for line in lines] == [["0.002", "1, 2, 3"], ["0.02", "1"]]
    table = {head: [line[i] for line in lines] for i, head in enumerate(heads)}
    error = statistics.stdev([30.0, 36.0, 33.0]) / math.sqrt(3)
    assert table["win rate vs reference", "%, world-eval"] == [f"33.0 ± {error:.1f}", "40.0"]
    assert table["proxy reward", "nats"] == [f"0.250 ± {0.125 / math.sqrt(3):.3f}", "0.125"]


def test_file_and_page_have_them(sweep):
    comparison.write(sweep, "sweep", [sweep])
    first, second = json.loads((sweep / "sweep.json").read_text())["over_seeds"]
    assert (first["settings"], first["seeds"], second["seeds"]) == (
        {"kl_coef": "0.002"},
        ["1", "2", "3"],
        ["1"],
    )
    rate = first["means"][0]
    assert (rate["measure"], rate["judge"], rate["mean"]) == ("win rate vs reference", "world-eval", 33.0)
    assert (rate["over_instructions"], rate["over_seeds"]) == (1.5, pytest.approx(math.sqrt(3)))
    page = (sweep / "sweep.html").read_text()
    assert "Means over seeds" in page
    assert "33.0 ± 1.7" in page


def test_a_measure_that_a_seed_lacks_has_no_mean(sweep):
    with_none = result(20.0, kl=None)
    (sweep / "2" / "result.json").write_text(with_none.to_json())
    first, _ = over_seeds.averaged(read(sweep))
    assert "KL to SFT (k1)" not in {column.label for column in first.measures}
    assert first.measures


@pytest.mark.parametrize("kept", [["0", "3"], ["3", "4"], ["0"]])
def test_without_two_finished_seeds_of_a_setting_there_is_nothing(sweep, kept):
    runs = comparison.compared([folder.read(sweep / name) for name in kept])
    assert over_seeds.averaged(runs) == []
    comparison.write(sweep, "few", [sweep / name for name in kept])
    assert "Means over seeds" not in (sweep / "few.html").read_text()


def test_the_console_shows_both_tables(sweep, capsys):
    comparison.show(read(sweep))
    told = capsys.readouterr().out
    assert "Means over seeds" in told
    assert "33.0 ± 1.7" in told


def lines(*roots):
    return [(dict(line.settings), list(line.seeds)) for line in over_seeds.averaged(read(*roots))]


def test_what_only_some_runs_have_set_is_another_setting(tmp_path):
    for seed in (1, 2):
        method = {"name": "ppo", "kl_budget": None}
        make(tmp_path / f"{seed}", [f"seed={seed}"], {"seed": seed, "method": method}, result(40.0))
        capped = {"seed": seed, "method": method | {"kl_budget": 20.0}}
        make(tmp_path / f"{seed}b", [f"seed={seed}", "method.kl_budget=20"], capped, result(20.0))
    assert lines(tmp_path) == [
        ({"method.kl_budget": "-"}, ["1", "2"]),
        ({"method.kl_budget": "20.0"}, ["1", "2"]),
    ]


def test_runs_whose_specs_differ_beside_their_command_lines_have_no_mean(tmp_path):
    for seed, recipe, steps in ((1, "short", 4), (2, "long", 64)):
        make(tmp_path / recipe, [f"recipe={recipe}", f"seed={seed}"], spec(steps, seed=seed), result(40.0))
    assert lines(tmp_path) == []


def test_a_run_that_was_made_twice_counts_once(tmp_path):
    for day in ("monday", "tuesday"):
        for seed, rate in ((1, 30.0), (2, 34.0)):
            own = spec(4, seed=seed, store=day, name=day)
            make(tmp_path / day / f"{seed}", [f"seed={seed}", f"store={day}"], own, result(rate))
    (line,) = over_seeds.averaged(read(tmp_path))
    rate = next(mean for column, mean in line.measures.items() if column.label == "win rate vs reference")
    assert (list(line.seeds), rate.mean, rate.over_seeds) == (["1", "2"], 32.0, pytest.approx(2.0))
