"""How far finished runs are apart on the rows that they share, by their judge and by gold."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alpacafarm.data.annotations import NAMES, read_annotations
from alpacafarm.report.result import Result
from alpacafarm.stage import Kind
from alpacafarm.stats.paired import DRAWS, Difference, Duel, difference, head_to_head
from alpacafarm.stats.seeds import stable_seed

MOST_IN_A_MATRIX = 12  # runs: wider tables are no use on a page
Answered = tuple[str | None, str | None, str | None]  # row, instruction, reference: the same in two runs


@dataclass(frozen=True)
class RunDifference:
    """`run`'s win rate less that of `other`, both against the same references under one judge."""

    run: str
    other: str
    role: str  # what `other` is: best, SFT
    judge: str
    difference: Difference


@dataclass(frozen=True)
class Apart:
    """What a comparison tells of its runs beyond their own numbers."""

    differences: Sequence[RunDifference] = ()
    names: Sequence[str] = ()  # of the runs in `gold`
    gold: Mapping[tuple[str, str], Duel] | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "differences": [
                {"run": d.run, "less": d.other, "which_is": d.role, "judge": d.judge, **asdict(d.difference)}
                for d in self.differences
            ],
            "gold_head_to_head": [
                {"run": a, "preferred_to": b, **asdict(duel)} for (a, b), duel in (self.gold or {}).items()
            ],
        }


def apart(results: Mapping[str, Result]) -> Apart:
    """Of finished runs by their name. Runs whose store is not here any more are left out."""
    names, gold = gold_duels(results)
    return Apart(differences(results), names, gold)


def differences(results: Mapping[str, Result]) -> list[RunDifference]:
    """Each run less the best and less the SFT model, where they share judge, rows and references."""
    by_judge: dict[str, dict[str, dict[Answered, float]]] = {}
    for name, result in results.items():
        if result.eval is not None and (found := shares(result)):
            by_judge.setdefault(result.eval.judge, {})[name] = found
    told = []
    for judge, rates in by_judge.items():
        best = max(rates, key=lambda name: statistics.fmean(rates[name].values()))
        others = {best: "best"}
        others |= {n: "SFT" for n in rates if results[n].method == "sft" and n != best}
        for other, role in others.items():
            for name, mine in rates.items():
                seed = stable_seed("difference", name, other)
                if name != other and (d := difference(mine, rates[other], seed=seed, draws=DRAWS)):
                    told.append(RunDifference(name, other, role, judge, d))
    return told


def shares(result: Result) -> dict[Answered, float]:
    """What goes to the run in each row that has a verdict; nothing where its scores are not here."""
    path = next((Path(s.folder) / NAMES[0] for s in result.stages if s.kind == Kind.SCORES), None)
    if path is None or not path.is_file():
        return {}
    return {
        (row.row, row.instruction, row.output_1): row.preference - 1
        for row in read_annotations(path)
        if row.preference is not None
    }


def gold_duels(results: Mapping[str, Result]) -> tuple[list[str], dict[tuple[str, str], Duel]]:
    """Who is truly preferred to whom, of the embedded world's runs; nothing for one run, or for very many."""
    from alpacafarm.world.gold import EQUAL_TO

    scores = {
        name: found
        for name, result in results.items()
        if result.gold is not None and (found := _gold_scores(result))
    }
    if not 2 <= len(scores) <= MOST_IN_A_MATRIX:
        return [], {}
    verdicts = []
    names = list(scores)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            for row in scores[first].keys() & scores[second].keys():
                gap = scores[second][row] - scores[first][row]
                verdicts.append((first, second, 0.5 if abs(gap) <= EQUAL_TO else float(gap > 0)))
    met, cells = head_to_head(verdicts)
    return [name for name in names if name in met], cells


def _gold_scores(result: Result) -> dict[tuple[str, str, str], float]:
    from alpacafarm.world.gold import read, score
    from alpacafarm.world.tasks import parse

    if result.outputs is None or not Path(result.outputs).is_file():
        return {}
    found = {}
    for row in json.loads(Path(result.outputs).read_text(encoding="utf-8")):
        task = parse(row["instruction"], row["input"])
        if task is not None:
            found[row["id"], row["instruction"], row["input"]] = score(read(task, row["output"]))
    return found
