"""A run that waits for people: they label its pairs, and the same run goes on from what they said."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from alpacafarm.data.rows import read_rows
from alpacafarm.errors import NeedsLabels
from alpacafarm.label.folder import opened
from alpacafarm.label.labels import Label
from alpacafarm.types import Preference
from tests.browser import Person, chromium
from tests.labelling import Served
from tests.runs import farm, tables

ASKED = ("feedback=human", "feedback/judge=people", "eval=none")


def folder_in(message: str) -> Path:
    """What a waiting run names."""
    (line,) = (line for line in message.splitlines() if "python -m alpacafarm.label " in line)
    return Path(shlex.split(line)[-1])


def labelled(folder: Path, count: int) -> None:
    """The first `count` pairs, by one person: always output 2."""
    opened_folder = opened(folder)
    for pair in list(opened_folder.pairs)[:count]:
        opened_folder.labels.give(Label(f"l-{pair}", pair, "ann", "2", swapped=True))


def test_two_people_label_in_a_browser_and_the_run_trains_on_it(perform):
    asked = (*ASKED, "feedback.judge.pairs=20")
    with pytest.raises(NeedsLabels, match=r"^waiting for people: 20 of 20 pairs still need labels") as caught:
        perform("rm", *asked)
    folder = folder_in(str(caught.value))
    server = Served(folder)
    with chromium() as browser:
        context = browser.new_context()
        ann = Person(context.new_page(), folder).begins(server.address, "Ann")
        ben = Person(context.new_page(), folder).begins(server.address, "Ben")
        keys = ["1", "2", "ArrowLeft", "ArrowRight", "3", "1", "2", "t", "2", "1"]
        for turn, key in enumerate(keys):
            if turn == 3:
                ann.tab.reload()
                ann.ready()
            if turn == 5:
                server.stop()
                server = Served(folder, port=server.port)
            ann.press(key)
            if not ben.is_done:
                ben.press(key)
        for person in (ann, ben):  # what the last key said is on its way
            person.tab.wait_for_function("n => state.standing.mine === n", arg=len(person.said))
        server.stop()
        assert ann.heard == [
            text for text in ann.heard if "Failed to load resource" in text
        ]  # while it was down
    given = opened(folder).labels.given()
    said = {("Ann", p): choice for p, choice in ann.said.items()}
    said |= {("Ben", p): choice for p, choice in ben.said.items()}
    assert {(one.labeller, one.pair): one.choice for one in given} == said  # nothing lost
    assert len(given) == len({one.pair for one in given}) == 20  # nothing doubled
    ran = perform("rm", *asked)
    assert ran.states["label"] in ("made", "resumed")
    rows = read_rows(ran.artifact("label") / "pairs.jsonl", Preference)
    value = {"1": 1.0, "2": 2.0, "tie": 1.5}
    assert {row.id: (row.annotator, row.preference) for row in rows} == {
        pair: (who, value[choice]) for (who, pair), choice in said.items()
    }
    assert ran.facts("label")["people"] == {"Ann": 10, "Ben": 10}
    assert (ran.artifact("rm") / "model" / "config.json").is_file()
    assert set(perform("rm", *asked).states.values()) == {"reused"}
    assert folder.is_dir()


def test_a_sweep_goes_on_and_ends_with_three(store, tmp_path):
    plain = ("cluster.engine=plain", "cluster.processes=1", "feedback=human", "eval=none")
    asked = farm.tiny("feedme", *plain, "feedback/judge=people,human", f"store='{store}'")
    command = farm.command("-m", *asked, "hydra.sweep.dir=sweep")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr[-2000:]
    assert "waiting for people: " in done.stderr
    assert "Traceback" not in done.stderr
    told = json.loads((tmp_path / "sweep" / "sweep.json").read_text())
    assert [run["state"] for run in told["runs"]] == ["waiting", "done"]
    folder = folder_in(told["runs"][0]["failure"])
    assert (folder / "pairs.jsonl").is_file()


def test_a_table_tells_the_runs_that_wait_and_makes_the_others(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked = ("human:feedback/judge=people", "human:feedback.judge.pairs=12")
    assert tables.make(tmp_path, "feedme", "sft10k", overrides=asked) == 3
    table = json.loads((tmp_path / "table2" / "table2.json").read_text())
    rows = {row["row"]: row["ours"] for row in table["rows"]}
    assert rows["sft10k"]["human"]["seeds"] == rows["feedme"]["sim"]["seeds"] == [1]
    waiting = rows["feedme"]["human"]
    assert (waiting["failed"], waiting["seeds"], list(waiting["unlabelled"])) == ({}, [], ["1"])
    assert "failed" not in capsys.readouterr().out
    page = (tmp_path / "table2" / "table2.md").read_text()
    assert "3 runs done, 0 failed, 1 need labels, 0 to come" in page
    assert "## Waiting for people" in page
    labelled(folder_in(waiting["unlabelled"]["1"]), 12)
    assert tables.make(tmp_path, "feedme", "sft10k", overrides=asked) == 0
    table = json.loads((tmp_path / "table2" / "table2.json").read_text())
    assert {row["row"]: row["ours"] for row in table["rows"]}["feedme"]["human"]["seeds"] == [1]


def test_people_label_on_own_instructions_too(perform, tmp_path):
    """`data=files` without judged pairs: collecting is the way out."""
    from tests.runs.test_own_files import rows, write

    paths = {name: write(tmp_path / f"{name}.jsonl", rows("sft", 24)) for name in ("sft", "preference")}
    asked = [
        "data=files",
        "model=scratch",
        *ASKED,
        *(f"data.{name}='{path}'" for name, path in paths.items()),
    ]
    with pytest.raises(NeedsLabels) as caught:
        perform("feedme", *asked, world=False)
    folder = folder_in(str(caught.value))
    labelled(folder, len(opened(folder).pairs))
    ran = perform("feedme", *asked, world=False)
    assert {row.annotator for row in read_rows(ran.artifact("label") / "pairs.jsonl", Preference)} == {"ann"}
