"""Several runs in one table, from folders made by hand."""

import json
import re
from dataclasses import replace

import pytest

from alpacafarm import compare
from alpacafarm.report import comparison, folder, frontier
from alpacafarm.report.result import Evaluation, Gold, Rate, Result, StageLine


def result(rate, *, judge="world-eval", gold=50.0, proxy=0.0, kl=1.0, reward_model="a" * 16, **changes):
    return replace(
        Result("x", "ppo", "sim", "world", "world", 0),
        eval=Evaluation(rate, 1.5, None, 805, 400, 400, 5, 200.0, judge, "reference"),
        vs_sft=Rate(rate + 20, 1.25),
        gold=Gold(gold, 1.0, 0.5, Rate(gold + 20, 1.1), Rate(49.0, 1.2)),
        reward_model_score=proxy,
        kl_to_sft=kl,
        stages=(StageLine("rm", reward_model, "reward", "made", 1.0, "store"),),
        policy="store/policy/0/model",
        **changes,
    )


def make(path, overrides, spec, made=None, failure=None):
    folder.begin(path, json.dumps(spec), overrides)
    if made is not None:
        (path / "result.json").write_text(made.to_json())
    if failure is not None:
        folder.note_failure(path, failure)
    return path


def spec(steps, kl_coef=0.0067, **others):
    return {"kl_coef": kl_coef, "method": {"name": "ppo", "steps": steps}, "given": {"rm": None}, **others}


@pytest.fixture
def sweep(tmp_path):
    root = tmp_path / "sweep"
    for number, (steps, rate, proxy, kl) in enumerate([(4, 30.0, 0.25, 1.0), (16, 35.0, 0.5, 4.0)]):
        asked = ["method=ppo", f"method.steps={steps}", "store=/s", f"+hydra.job.x={steps}"]
        make(root / str(number), asked, spec(steps), result(rate, proxy=proxy, kl=kl))
    make(root / "2", ["method=ppo", "method.steps=64", "store=/t"], spec(64), failure="stage ppo failed: <b>")
    make(root / "10", ["method=ppo", "method.steps=256", "store=/t"], spec(256))
    return root


def read(*roots):
    return comparison.compared([folder.read(path) for path in folder.find(roots)])


def test_runs_come_in_the_order_of_their_numbers_with_the_swept_key_alone(sweep):
    runs = read(sweep)
    assert [run.name for run in runs] == ["0", "1", "2", "10"]
    assert [dict(run.settings) for run in runs] == [{"method.steps": s} for s in ("4", "16", "64", "256")]
    assert [run.folder.state for run in runs] == ["done", "done", "failed", "unfinished"]


def test_a_table_has_each_number_with_its_error_under_its_judge(sweep):
    heads, lines = comparison.cells(read(sweep))
    table = {head: [line[i] for line in lines] for i, head in enumerate(heads)}
    assert table["win rate vs reference", "%, world-eval"] == ["30.0 ± 1.5", "35.0 ± 1.5", "-", "-"]
    assert table["win rate vs SFT", "%, world-eval"][0] == "50.0 ± 1.2"
    assert table["gold vs SFT", "%, gold"][0] == "70.0 ± 1.1"
    assert table["proxy reward", "nats"][:2] == ["0.250", "0.500"]
    assert table["KL to SFT (k1)", "nats per response"][:2] == ["1.000", "4.000"]
    assert table["length", "characters"][0] == "200.0"
    assert ("proxy reward by", "reward model") not in heads


def test_numbers_of_different_judges_never_share_a_column(tmp_path):
    make(tmp_path / "a", [], {}, result(30.0, judge="world-eval"))
    make(tmp_path / "b", [], {}, result(40.0, judge="world-human"))
    heads, lines = comparison.cells(read(tmp_path))
    table = {head: [line[i] for line in lines] for i, head in enumerate(heads)}
    assert table["win rate vs reference", "%, world-eval"] == ["30.0 ± 1.5", "-"]
    assert table["win rate vs reference", "%, world-human"] == ["-", "40.0 ± 1.5"]
    assert len(frontier.drawings([({}, result(30.0, judge=j)) for j in "aabb"])) == 4


def test_several_reward_models_are_told_apart(tmp_path):
    make(tmp_path / "a", [], {}, result(30.0, reward_model="a" * 16))
    make(tmp_path / "b", [], {"given": {"rm": "owner/rm"}}, replace(result(30.0), stages=()))
    heads, lines = comparison.cells(read(tmp_path))
    assert heads[-1] == ("proxy reward by", "reward model")
    assert [line[-1] for line in lines] == ["a" * 16, "owner/rm"]


def test_a_default_of_one_run_stands_beside_the_override_of_another(tmp_path):
    make(tmp_path / "a", ["method=ppo"], spec(4), result(30.0))
    make(tmp_path / "b", ["method=ppo", "kl_coef=0.02"], spec(4, kl_coef=0.02), result(30.0))
    make(tmp_path / "c", ["method=sft"], {"method": {"name": "sft"}, "kl_coef": None}, result(30.0))
    settings = [dict(run.settings) for run in read(tmp_path)]
    assert [s["kl_coef"] for s in settings] == ["0.0067", "0.02", "-"]
    assert [s["method"] for s in settings] == ["ppo", "ppo", "sft"]


def test_best_of_n_has_a_bound_instead_of_a_sampled_kl(tmp_path):
    make(tmp_path / "a", [], {}, replace(result(30.0), policy=None))
    heads, _ = comparison.cells(read(tmp_path))
    assert "KL to SFT (analytic bound)" in [what for what, _ in heads]


def test_a_line_of_the_plot_runs_along_what_says_how_long_was_optimised():
    runs = [
        ({"method": "ppo", "method.pick.step": "4", "kl_coef": "0.0", "seed": "1"}, result(1.0)),
        ({"method": "best_of_n", "method.pick.step": "-", "kl_coef": "-", "seed": "1"}, result(1.0)),
    ]
    assert frontier.lines(runs) == ["method=ppo, kl_coef=0.0, seed=1", "method=best_of_n, seed=1"]
    by_kl = [({"kl_coef": value, "seed": seed}, result(1.0)) for value in ("0", "0.02", "1") for seed in "12"]
    assert frontier.lines(by_kl)[:2] == ["seed=1", "seed=2"]
    assert frontier.lines([({"seed": "1"}, result(1.0)), ({"seed": "2"}, result(1.0))]) == [
        "seed=1",
        "seed=2",
    ]
    assert frontier.lines([({}, result(1.0))]) == ["ppo"]


def test_a_plot_has_the_swept_key_on_its_axis():
    runs = [({"kl_coef": value, "seed": seed}, result(1.0)) for value in ("0.002", "0.02") for seed in "12"]
    drawn = frontier.drawings(runs)
    assert [re.findall(r'aria-label="([^"]+)"', drawing)[0] for drawing in drawn] == [
        "kl_coef, judge world-eval",
        "proxy reward (nats), judge world-eval",
        "square root of KL to SFT (nats), judge world-eval",
    ]
    assert frontier.number("kl_coef", runs[2]) == 0.02
    assert frontier.number("kl_coef", ({"kl_coef": "-"}, result(1.0))) is None
    assert [frontier.is_wide(values) for values in ([1, 8], [1, 7], [0, 8])] == [True, False, False]


def test_a_point_has_the_rates_against_sft_where_there_are_some():
    made = result(30.0, gold=60.0, kl=9.0)
    point = frontier.point("x", 3.0, made, "SFT")
    assert (point.judge, point.gold, point.judge_error, point.gold_error) == (50.0, 80.0, 1.25, 1.1)
    assert frontier.root_kl(({}, made)) == 3.0
    assert frontier.root_kl(({}, replace(made, kl_to_sft=-0.01))) == 0.0
    point = frontier.point("x", 3.0, made, "reference")
    assert (point.judge, point.gold) == (30.0, 60.0)


def test_page_and_json_hold_numbers_failures_and_plots(sweep, tmp_path):
    comparison.write(tmp_path / "out", "sweep", [sweep])
    told = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [run["state"] for run in told["runs"]] == ["done", "done", "failed", "unfinished"]
    assert told["runs"][1]["result"]["eval"]["win_rate"] == 35.0
    assert told["runs"][2]["failure"] == "stage ppo failed: <b>"
    page = (tmp_path / "out" / "sweep.html").read_text()
    assert "stage ppo failed: &lt;b&gt;" in page
    assert "35.0 ± 1.5" in page
    assert len(re.findall(r'aria-label="([^"]+), judge world-eval"', page)) == 3
    assert re.findall(r'(?:href|src)="(?!#)', page) == []


def test_command_takes_runs_and_sweeps_and_refuses_folders_without_any(sweep, tmp_path, capsys):
    out = tmp_path / "out"
    assert compare.main([str(sweep / "0"), str(sweep / "1"), "--out", str(out)]) == 0
    assert "35.0 ± 1.5" in capsys.readouterr().out
    assert {path.name for path in out.iterdir()} == {"comparison.json", "comparison.html"}
    (tmp_path / "empty").mkdir()
    assert compare.main([str(tmp_path / "empty")]) == 2
    assert "no run below" in capsys.readouterr().err
    (sweep / "0" / "result.json").write_text("{")
    assert compare.main([str(sweep)]) == 2


def test_beginning_again_takes_the_old_outcome_away(tmp_path):
    path = make(tmp_path, ["a=1"], {"a": 1}, result(30.0), failure="no")
    folder.begin(path, "{}", [])
    assert folder.read(path).state == "unfinished"
    assert folder.read(path).overrides == {}


def test_a_recipe_is_a_setting_only_where_nothing_else_tells_runs_apart(tmp_path):
    make(tmp_path / "a", ["recipe=one", "method.steps=4"], spec(4), result(30.0))
    make(
        tmp_path / "b", ["recipe=two", "method.n=4"], {"method": {"name": "best_of_n", "n": 4}}, result(30.0)
    )
    assert list(read(tmp_path)[0].settings) == ["method"]  # a key that one alone has tells nothing
    make(tmp_path / "c", ["recipe=three", "method.steps=4"], spec(4), result(30.0))
    assert [run.settings["recipe"] for run in read(tmp_path)] == ["one", "two", "three"]
