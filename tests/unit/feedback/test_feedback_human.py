"""Collecting: the stage waits for people, and what they said becomes judged pairs."""

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from alpacafarm.data.rows import read_rows, write_outputs
from alpacafarm.errors import JudgeError, NeedsLabels
from alpacafarm.feedback.human import LabelSpec, label
from alpacafarm.label.folder import opened
from alpacafarm.label.labels import Label
from alpacafarm.ports import Artifact
from alpacafarm.spec.judge import PeopleJudge
from alpacafarm.stage import Kind
from alpacafarm.types import Output, Preference


@dataclass
class Context:
    """As much of `ports.Context` as the stage uses."""

    home: Path
    seed: int = 7
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.home / "out"

    @property
    def labels(self) -> Path:
        return self.home / "la bels"

    def record(self, **facts: Any) -> None:
        self.facts.update(facts)


@pytest.fixture
def ctx(tmp_path) -> Context:
    samples = [
        Output(f"row-{i}", f"Do {i}.", "", f"{text} {i}", "sft", sample=n)
        for i in range(6)
        for n, text in enumerate(("yes", "yes" if i == 5 else "no"))  # the last has two equal answers
    ]
    write_outputs(tmp_path / "samples" / "outputs.json", samples)
    return Context(tmp_path)


def run(ctx: Context, *, pairs=None, labels_per_pair=1, count="majority") -> None:
    people = PeopleJudge(kind="people", pairs=pairs, labels_per_pair=labels_per_pair, count=count)
    samples = Artifact(ctx.home / "samples", Kind.OUTPUTS, "k")
    label(LabelSpec(people=people), {"samples": samples}, ctx)  # type: ignore[arg-type]


def waiting(ctx: Context, **how) -> tuple[str, Path]:
    """What the stage says when it waits, and the folder that it names."""
    with pytest.raises(NeedsLabels) as caught:
        run(ctx, **how)
    assert caught.value.exit_code == 3
    told = str(caught.value)
    (line,) = (line for line in told.splitlines() if "python -m alpacafarm.label" in line)
    return told, Path(shlex.split(line.split("alpacafarm.label")[1])[0])


def say(folder: Path, who: str, choices: dict[str, str]) -> None:
    labels = opened(folder).labels
    for pair, choice in choices.items():
        labels.give(Label(f"{pair}-{who}-{choice}", pair, who, choice, swapped=False))  # type: ignore[arg-type]


def test_it_waits_until_every_pair_has_its_labels(ctx):
    told, folder = waiting(ctx)
    assert "waiting for people: 5 of 5 pairs still need labels (0 labels so far)" in told
    assert "give this run's command again" in told
    say(folder, "ann", {"row-0": "1", "row-1": "2", "row-2": "tie", "row-3": "skip"})
    told, again = waiting(ctx)
    assert again == folder
    assert "1 of 5 pairs still need labels (4 labels so far)" in told
    say(folder, "ben", {"row-4": "2"})
    run(ctx)
    rows = read_rows(ctx.out / "pairs.jsonl", Preference)
    assert [(row.id, row.preference, row.annotator) for row in rows] == [
        ("row-0", 1, "ann"),
        ("row-1", 2, "ann"),
        ("row-2", 1.5, "ann"),
        ("row-4", 2, "ben"),
    ]
    assert {(row.output_1, row.output_2) for row in rows} <= {
        (f"{a} {i}", f"{b} {i}") for i in range(5) for a, b in (("yes", "no"), ("no", "yes"))
    }
    facts = ctx.facts
    assert (facts["pairs"], facts["ties"], facts["skipped"], facts["unfinished"]) == (4, 1, 1, 0)
    assert facts["people"] == {"ann": 4, "ben": 1}
    assert facts["labels_folder"] == str(folder)
    labels = [json.loads(line) for line in (ctx.out / "labels.jsonl").read_text().splitlines()]
    assert [(one["pair"], one["labeller"]) for one in labels] == [(row.id, row.annotator) for row in rows]


def test_what_is_asked_for_may_change_and_no_label_is_lost(ctx):
    _, folder = waiting(ctx)
    say(folder, "ann", {"row-0": "1", "row-1": "1"})
    run(ctx, pairs=2)
    told, again = waiting(ctx, pairs=2, labels_per_pair=2)
    assert again == folder
    assert "2 of 2 pairs still need labels (2 labels so far)" in told
    say(folder, "ben", {"row-0": "2", "row-1": "1"})
    run(ctx, pairs=2, labels_per_pair=2)
    assert [row.preference for row in read_rows(ctx.out / "pairs.jsonl", Preference)] == [1.5, 1]
    assert ctx.facts["agreement"]["pairs"] == 2
    assert ctx.facts["agreement"]["equal"] == 0.5


def test_pairs_without_all_their_labels_are_left_out_and_counted(ctx):
    _, folder = waiting(ctx)
    say(folder, "ann", {"row-0": "1", "row-1": "2"})
    say(folder, "ben", {"row-0": "2"})
    run(ctx, pairs=1, labels_per_pair=2, count="mean")
    (row,) = read_rows(ctx.out / "pairs.jsonl", Preference)
    assert (row.id, row.preference, row.annotator) == ("row-0", 1.5, "ann, ben")
    assert ctx.facts["unfinished"] == 1


def test_pairs_are_labelled_in_an_order_drawn_from_the_seed(ctx):
    _, folder = waiting(ctx)
    order = list(opened(folder).pairs)
    assert order != sorted(order)
    assert sorted(order) == [f"row-{i}" for i in range(5)]


def test_other_pairs_are_labelled_in_another_folder(ctx):
    _, folder = waiting(ctx)
    ctx.seed = 8
    _, other = waiting(ctx)
    assert other != folder


def test_nothing_but_skips_is_told(ctx):
    _, folder = waiting(ctx)
    say(folder, "ann", {f"row-{i}": "skip" for i in range(5)})
    with pytest.raises(JudgeError, match=r"people skipped all 5 pairs in .*; change labels on the page"):
        run(ctx)
