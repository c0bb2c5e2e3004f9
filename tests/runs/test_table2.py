"""The table goes on where it was: killed anywhere, with failing runs, and with everything made already."""

import json
import multiprocessing
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from alpacafarm.errors import StageError
from alpacafarm.table2 import __main__ as command
from alpacafarm.table2 import runs
from alpacafarm.table2.runs import Asked
from tests.runs import tables

SERVER = multiprocessing.get_context("forkserver")
ROWS = ("base", "sft10k", "feedme")


def told(home, *, timeless=True):
    table = json.loads((home / "table2" / "table2.json").read_text())
    for row in table["rows"]:
        for entry in row["ours"].values():
            if entry and timeless:
                del entry["seconds"]
    return table


def entry(table, row, column):
    return next(r for r in table["rows"] if r["row"] == row)["ours"][column]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    home = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert tables.make(home, *ROWS) == 0
    return home


def test_every_run_has_its_folder_and_the_table_its_numbers(undisturbed):
    folders = {path.parent for path in (undisturbed / "table2" / "runs").rglob("result.json")}
    assert {f.relative_to(undisturbed / "table2" / "runs").as_posix() for f in folders} == {
        f"smoke/1/{column}/{row}" for column in ("sim", "human") for row in ROWS
    }
    for folder in folders:
        names = {path.name for path in folder.iterdir()}
        assert names == {"spec.json", "overrides.json", "result.json", "report.html", "run.log"}
    table = told(undisturbed, timeless=False)
    for row in ROWS:
        for column, judge in (("sim", "world-eval"), ("human", "world-human")):
            found = entry(table, row, column)
            assert found["judges"] == [judge]
            assert found["seconds"] > 0
            result = json.loads((undisturbed / found["runs"][0] / "result.json").read_text())
            assert found["cells"]["win_rate"]["mean"] == result["eval"]["win_rate"]
            assert found["cells"]["gold"]["over_instructions"] == result["gold"]["standard_error"]
    assert {path.name for path in (undisturbed / "table2").glob("table2.*")} == {
        "table2.json",
        "table2.md",
        "table2.html",
    }


def test_shared_stages_are_made_once(undisturbed):
    made = [
        stage["key"]
        for path in (undisturbed / "table2" / "runs").rglob("result.json")
        for stage in json.loads(path.read_text())["stages"]
        if stage["state"] == "made"
    ]
    assert made
    assert len(made) == len(set(made))


def test_the_same_command_makes_nothing_again(undisturbed, monkeypatch, capsys):
    monkeypatch.chdir(undisturbed)
    before = told(undisturbed, timeless=False)
    monkeypatch.setattr(runs, "perform", lambda *_: pytest.fail("a finished run was performed again"))
    assert tables.make(undisturbed, *ROWS) == 0
    assert told(undisturbed, timeless=False) == before
    assert capsys.readouterr().out.count("made before") == 2 * len(ROWS)


def test_runs_whose_stages_are_all_stored_cost_no_second(undisturbed, monkeypatch, tmp_path):
    """Beyond the first, which imports what draws reports."""
    monkeypatch.chdir(tmp_path)
    store = (f"store={undisturbed / 'store'}",)
    tables.make(tmp_path, "base", overrides=store)
    items = runs.planned(tables.asked("sft10k", overrides=store))
    runs.attempt(items[0])
    started = time.process_time()
    outcome = runs.attempt(items[1])
    assert {stage.state for stage in outcome.result.stages} == {"reused"}
    assert time.process_time() - started < 1


def test_killed_anywhere_ends_with_the_same_table(undisturbed, tmp_path):
    rows = ("base", "sft10k")
    while True:
        process = SERVER.Process(target=tables.make_until, args=(tmp_path, tmp_path / "survived", *rows))
        process.start()
        process.join(120)
        if process.exitcode == 0:
            break
        assert process.exitcode == -signal.SIGKILL
    assert sorted((tmp_path / "survived").read_text().splitlines()) == sorted(tables.POINTS)
    table = told(tmp_path)
    for row in rows:
        for column in ("sim", "human"):
            assert entry(table, row, column) == entry(told(undisturbed), row, column)


def test_runs_at_the_same_time_give_the_same_table_and_share_stages(undisturbed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert tables.make(tmp_path, *ROWS, jobs=3) == 0
    assert told(tmp_path) == told(undisturbed)
    folders = {path.relative_to(tmp_path) for path in tmp_path.glob("store/*/*/artifact.json")}
    assert folders == {path.relative_to(undisturbed) for path in undisturbed.glob("store/*/*/artifact.json")}
    logs = [path.read_text() for path in tmp_path.rglob("run.log")]
    assert len(logs) == 2 * len(ROWS)
    assert sum(log.count("stage sft made in") for log in logs) == 1, logs


def test_what_runs_beside_another_run_does_not_wait_for_its_stages():
    asked = Asked("smoke", (1, 2), ROWS, Path("table2"), tables.TINY, jobs=2)
    items = runs.planned(asked)
    places = range(len(items))
    assert (items[0].title, items[6].seed) == ("LLaMA 7B on sim, seed 1", 2)
    assert runs.best_next(items, places[1:], [0], set()) == 6  # another seed: the rows alone
    assert runs.best_next(items, places[1:], [0], runs.keys_of(items[0])) == 1
    assert runs.best_next(items, places[1:6], [0], set()) == 2  # decodes another policy


def test_killed_with_runs_at_the_same_time_goes_on_and_leaves_no_process(undisturbed, tmp_path):
    command = [sys.executable, "-m", "alpacafarm.table2", "--scale", "smoke", "--seeds", "1", "--jobs", "2"]
    asked = [*command, "--rows", ",".join(ROWS), *tables.TINY]
    for made in (2, 5):
        process = subprocess.Popen(asked, cwd=tmp_path, stdout=subprocess.DEVNULL)
        while process.poll() is None and len(list(tmp_path.glob("store/*/*/artifact.json"))) < made:
            time.sleep(0.02)
        workers = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert workers
        assert not alive
    assert subprocess.run(asked, cwd=tmp_path, stdout=subprocess.DEVNULL).returncode == 0
    assert told(tmp_path) == told(undisturbed)


def test_a_failing_run_ends_no_other_and_is_told(undisturbed, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    perform, states = runs.perform, []

    def fail(job, folder):
        states.append(told(tmp_path))
        if job.spec.name == "base_sim":
            raise StageError("stage compare failed: of no luck")
        if job.spec.name == "sft10k_human":
            raise ZeroDivisionError("a fault of ours")
        return perform(job, folder)

    monkeypatch.setattr(runs, "perform", fail)
    store = (f"store={undisturbed / 'store'}",)
    assert tables.make(tmp_path, "base", "sft10k", overrides=store) == 1
    table = told(tmp_path)
    assert entry(table, "base", "sim")["failed"] == {"1": "stage compare failed: of no luck"}
    failed = entry(table, "sft10k", "human")["failed"]["1"]
    assert failed.startswith("ZeroDivisionError: a fault of ours; ")
    assert "in fail" in (tmp_path / failed.split("; ")[1].split()[0]).read_text()  # the traceback
    assert entry(table, "base", "human")["seeds"] == entry(table, "sft10k", "sim")["seeds"] == [1]
    assert "failed: stage compare failed: of no luck" in capsys.readouterr().out
    # a table after every run
    assert [entry(state, "base", "sim")["waiting"] for state in states] == [[1], [], [], []]
    monkeypatch.setattr(runs, "perform", perform)
    assert tables.make(tmp_path, "base", "sft10k", overrides=store) == 0
    assert entry(told(tmp_path), "base", "sim") == entry(told(undisturbed), "base", "sim")


def test_what_is_wrong_ends_with_two_before_anything_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command.run, "settle", lambda: None)
    assert command.main(["--rows", "sft10k,ppo", "method.epoch=1"]) == 2
    assert "method.epoch=1: there is no such key" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_result_of_other_stages_is_no_result_of_the_run(undisturbed, monkeypatch):
    monkeypatch.chdir(undisturbed)
    same, other = (runs.planned(tables.asked("base", overrides=o))[0] for o in ((), ("data.eval=8",)))
    assert same.folder == other.folder
    assert runs.earlier(same).result is not None
    assert runs.earlier(other).result is None


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interrupted_command_says_so(tmp_path, jobs):
    asked = [
        "--scale",
        "smoke",
        "--rows",
        "base,sft10k",
        "--jobs",
        jobs,
        *tables.TINY,
        "upstream.base.epochs=400",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "alpacafarm.table2", *asked], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None and not list(tmp_path.glob("store/policy/*.partial/out/log.jsonl")):
        time.sleep(0.1)
    process.terminate()
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert said.endswith("interrupted; what was made is kept, the same command goes on\n")
    assert "Traceback" not in said
    assert (tmp_path / "table2" / "table2.html").exists()
