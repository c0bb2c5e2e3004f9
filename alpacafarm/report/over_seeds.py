"""Runs that differ in nothing but their seed, together: means over the seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alpacafarm.report.result import Column, Measure, number
from alpacafarm.stats.seed_mean import SeedMean, Value, seed_mean

if TYPE_CHECKING:
    from alpacafarm.report.comparison import Compared

SEED = "seed"


@dataclass(frozen=True)
class Averaged:
    """Finished runs of one setting. `measures` are those that every one of them has."""

    settings: Mapping[str, str]  # without the seed
    seeds: Sequence[str]
    measures: Mapping[Column, SeedMean]

    def as_json(self) -> dict[str, Any]:
        told = [
            {"measure": c.label, "unit": c.unit, "judge": c.judge, **vars(mean)}
            for c, mean in self.measures.items()
        ]
        return {"settings": self.settings, "seeds": self.seeds, "means": told}


def averaged(runs: Iterable[Compared]) -> list[Averaged]:
    """In the order of their first run. Nothing where no two finished runs differ in the seed alone."""
    alike: dict[tuple[tuple[str, str], ...], list[Compared]] = {}
    for run in runs:
        if SEED in run.settings and run.folder.result is not None:
            rest = tuple((key, value) for key, value in run.settings.items() if key != SEED)
            alike.setdefault(rest, []).append(run)
    if not any(len({run.settings[SEED] for run in group}) > 1 for group in alike.values()):
        return []
    return [
        Averaged(dict(rest), [run.settings[SEED] for run in group], _means(group))
        for rest, group in alike.items()
    ]


def _means(group: Sequence[Compared]) -> dict[Column, SeedMean]:
    first, *others = (run.measures for run in group)
    return {
        column: seed_mean([_value(measures[column]) for measures in (first, *others)])
        for column in first
        if all(column in measures for measures in others)
    }


def _value(measure: Measure) -> Value:
    assert measure.value is not None
    return measure.value, measure.standard_error


def cells(
    lines: Sequence[Averaged], columns: Sequence[Column]
) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """The table as text, its heads like those of the runs' table."""
    keys = list(lines[0].settings) if lines else []
    shown = [column for column in columns if any(column in line.measures for line in lines)]
    heads = [*((key, "") for key in keys), ("seeds", ""), *(column.head for column in shown)]
    return heads, [
        [
            *line.settings.values(),
            ", ".join(line.seeds),
            *(_cell(line.measures.get(column), column.places) for column in shown),
        ]
        for line in lines
    ]


def _cell(mean: SeedMean | None, places: int) -> str:
    if mean is None:
        return "-"
    told = number(mean.mean, places)
    return told if mean.over_seeds is None else f"{told} ± {number(mean.over_seeds, places)}"
