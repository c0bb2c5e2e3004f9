"""Runs that differ in nothing but their seed, together: means over the seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alpacafarm.report.result import Column, Measure, number
from alpacafarm.stage import canonical_json
from alpacafarm.stats.seed_mean import SeedMean, Value, seed_mean

if TYPE_CHECKING:
    from alpacafarm.report.comparison import Compared

SEED = "seed"
# Of a run's spec: what is no setting of the experiment.
ASIDE = frozenset({"name", "store", "action", "force", "cluster", "tracking", "budget"})


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
    alike: dict[str, dict[str, Compared]] = {}
    for run in runs:
        if SEED in run.settings and run.folder.result is not None:
            own = {key: value for key, value in run.folder.spec.items() if key not in ASIDE | {SEED}}
            # A run that was made twice counts once.
            alike.setdefault(canonical_json(own), {}).setdefault(run.settings[SEED], run)
    if not any(len(group) > 1 for group in alike.values()):
        return []
    return [_averaged(group) for group in alike.values()]


def _averaged(group: Mapping[str, Compared]) -> Averaged:
    runs = list(group.values())
    rest = {key: value for key, value in runs[0].settings.items() if key != SEED}
    return Averaged(rest, list(group), _means(runs))


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
