"""Human feedback: the user's recorded preferences, labels that people give on a local page, or in the
embedded world a human-like pool.

The pool's people disagree more than simulated annotators do and add no coin flips of their own."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from random import Random
from typing import Annotated

from pydantic import Field, model_validator

from alpacafarm.data import plan as data_plan
from alpacafarm.data.rows import read_outputs, write_rows, write_text
from alpacafarm.errors import JudgeError, NeedsLabels, PlanError
from alpacafarm.feedback import sim
from alpacafarm.label import folder as label_folder
from alpacafarm.label.labels import Standing
from alpacafarm.label.verdicts import agreement, by_pair, judged
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.spec.base import Problem, Strict, refuse
from alpacafarm.spec.judge import JudgeSpec, PeopleJudge
from alpacafarm.stage import Bill, Kind, Node, Stage, canonical_json
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Pair

WAITING = """\
waiting for people: {missing:,} of {goal:,} pairs still need labels ({labels:,} labels so far)
  label them:  python -m alpacafarm.label {folder}
  then go on:  give this run's command again"""


class Spec(sim.SampleSpec):
    """As simulated feedback, but `judge` may be people. `preferences` names what people have said already,
    which is used instead."""

    flip_probability: float = Field(ge=0, le=0.5)
    judge: Annotated[JudgeSpec | PeopleJudge, Field(discriminator="kind")]
    preferences: str | None

    @model_validator(mode="after")
    def people_say_what_they_mean(self) -> Spec:
        if isinstance(self.judge, PeopleJudge) and self.flip_probability:
            text = "must be 0 where people judge: no coin replaces them; set .flip_probability=0.0"
            refuse(Problem("flip_probability", self.flip_probability, text))
        return self


class LabelSpec(Strict):
    """What people are asked for."""

    people: PeopleJudge


def plan(spec: Spec, up: Upstream) -> Node:
    people = isinstance(spec.judge, PeopleJudge)
    if people and spec.preferences:
        raise PlanError(
            f"feedback.judge.kind=people: data.preferences={spec.preferences} has people's judgements "
            "already; set data.preferences=null to collect others, or leave feedback/judge out"
        )
    if spec.preferences:
        return data_plan.pairs_from_file(up, "data.preferences", spec.preferences)
    if isinstance(spec.judge, PeopleJudge):
        return labelled(spec, spec.judge, up)
    if spec.judge.kind != "world" or not up.has_gold:
        raise PlanError(
            "feedback=human needs people's judgements and data.preferences=null: "
            "name a file of judged pairs in data.preferences or given.pairs, have people judge pairs with "
            "feedback/judge=people, or use data=world"
        )
    return sim.annotated(sim.AnnotateSpec.model_validate(spec.canonical(exclude={"preferences"})), up)


def labelled(spec: Spec, judge: PeopleJudge, up: Upstream) -> Stage:
    """The pairs of two samples of the SFT model for each instruction, judged by people."""
    rows = up.row_count("preference")
    pairs = judge.pairs if rows is None or judge.pairs is None else min(judge.pairs, rows)
    told = "the" if pairs is None else f"{pairs:,}"
    return up.stage(
        "label",
        "alpacafarm.feedback.human:label",
        LabelSpec(people=judge),
        makes=Kind.PAIRS,
        inputs={"samples": sim.sampled(spec, up)},
        uses_model=False,
        bill=Bill(f"people label {told} pairs, {judge.labels_per_pair} each, 0 USD"),
    )


def label(spec: LabelSpec, inputs: Inputs, ctx: Context) -> None:
    """Writes `pairs.jsonl` and every label behind it (`labels.jsonl`); NeedsLabels while some are missing.

    Pairs that everybody skipped are left out, and so are those that lack some of their labels when enough
    others have all. Both are counted.
    """
    people = spec.people
    pairs = sim.comparable(read_outputs(inputs["samples"].path / "outputs.json"), ctx.seed)
    folder = label_folder.made(ctx.labels, shuffled(pairs, ctx.seed))
    standing = folder.labels.ask_for(labels_per_pair=people.labels_per_pair, goal=people.pairs)
    if standing.missing:
        raise NeedsLabels(waiting(standing, folder))
    given = folder.labels.given()
    rows = judged(pairs, given, labels_per_pair=people.labels_per_pair, count=people.count)
    if not rows:
        raise JudgeError(
            f"people skipped all {len(pairs)} pairs in {folder.path}, so there is nothing to learn from; "
            "change labels on the page (key u), or have other pairs sampled with another seed"
        )
    used = by_pair(given)
    labels = [used_label for row in rows for used_label in used[row.id]]
    write_rows(ctx.out / "pairs.jsonl", rows)
    write_text(ctx.out / "labels.jsonl", "".join(canonical_json(asdict(one)) + "\n" for one in labels))
    ctx.record(
        pairs=len(rows),
        ties=sum(row.is_tie for row in rows),
        skipped=standing.skipped,
        unfinished=standing.begun,
        labels=standing.labels,
        people=folder.labels.counts(),
        agreement=agreement(given),
        labels_folder=str(folder.path),
        judge="people",
    )


def shuffled(pairs: list[Pair], seed: int) -> list[Pair]:
    """In the order of labelling: whenever people stop, what they have done is a random part."""
    return Random(stable_seed(seed, "order of labelling")).sample(pairs, len(pairs))


def waiting(standing: Standing, folder: label_folder.Folder) -> str:
    return WAITING.format(
        missing=standing.missing,
        goal=standing.goal,
        labels=standing.labels,
        folder=shlex.quote(str(folder.path)),
    )
