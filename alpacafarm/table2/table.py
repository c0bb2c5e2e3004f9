"""The table's arithmetic: means over seeds with two kinds of error, ranks, and how far orders agree."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alpacafarm.report.result import Result
from alpacafarm.stats.rank import Measured, RankAgreement, rank_bootstrap, ranks
from alpacafarm.stats.seed_mean import SeedMean, Value, seed_mean
from alpacafarm.table2.alone import seconds_alone
from alpacafarm.table2.rows import COLUMNS, ROWS, Column
from alpacafarm.table2.runs import Outcome

DRAWS = 2000
MIN_METHODS = 3  # two are ordered alike or not, which is no correlation


@dataclass(frozen=True)
class Entry:
    """One row in one column of the table: `cells` by measure, `failed` messages by seed.

    `unlabelled`, in the same way, are runs that wait for people.
    """

    cells: Mapping[str, SeedMean] = field(default_factory=dict)
    seconds: float | None = None
    seeds: tuple[int, ...] = ()
    failed: Mapping[int, str] = field(default_factory=dict)
    unlabelled: Mapping[int, str] = field(default_factory=dict)
    waiting: tuple[int, ...] = ()
    judges: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Agreement:
    """Of two columns' orders, over the `methods` that both have."""

    first: str
    second: str
    methods: tuple[str, ...]
    ranks: RankAgreement


@dataclass(frozen=True)
class Table:
    scale: str
    seeds: tuple[int, ...]
    entries: Mapping[tuple[str, Column], Entry]
    ranks: Mapping[str, Mapping[str, float]]  # column's title: row: rank
    agreements: Sequence[Agreement]
    notes: Sequence[str] = ()


def measured(result: Result) -> dict[str, Value]:
    """The numbers of a run that the table shows, those that it has."""
    found: dict[str, tuple[float | None, float | None]] = {}
    if result.eval:
        found["win_rate"] = result.eval.win_rate, result.eval.standard_error
        found["avg_length"] = result.eval.avg_length, None
    if result.vs_sft:
        found["vs_sft"] = result.vs_sft.win_rate, result.vs_sft.standard_error
    if result.gold:
        found["gold"] = result.gold.win_rate, result.gold.standard_error
        for name, rate in (("gold_vs_sft", result.gold.vs_sft), ("null", result.gold.null)):
            if rate:
                found[name] = rate.win_rate, rate.standard_error
    found["reward_model_score"] = result.reward_model_score, None
    found["kl_to_sft"] = result.kl_to_sft, None
    return {name: (value, error) for name, (value, error) in found.items() if value is not None}


def entry(outcomes: Sequence[Outcome], seconds: Mapping[Path, float]) -> Entry:
    done = [(outcome, outcome.result) for outcome in outcomes if outcome.result]
    values: dict[str, list[Value]] = {}
    for _, result in done:
        for name, value in measured(result).items():
            values.setdefault(name, []).append(value)
    spent = [seconds[o.planned.folder] for o, _ in done if o.planned.folder in seconds]
    return Entry(
        cells={name: seed_mean(found) for name, found in values.items()},
        seconds=math.fsum(spent) / len(spent) if spent else None,
        seeds=tuple(outcome.planned.seed for outcome, _ in done),
        failed={o.planned.seed: o.failure for o in outcomes if o.failure is not None and not o.waits},
        unlabelled={o.planned.seed: o.failure for o in outcomes if o.failure is not None and o.waits},
        waiting=tuple(o.planned.seed for o in outcomes if o.result is None and o.failure is None),
        judges=tuple(dict.fromkeys(result.eval.judge for _, result in done if result.eval)),
        runs=tuple(str(outcome.planned.folder) for outcome, _ in done),
    )


def ranking(values: Mapping[str, Measured]) -> dict[str, float]:
    """1 for the highest; equals share the mean of their places."""
    return dict(zip(values, ranks([-value.mean for value in values.values()]), strict=True))


def published(column: Column) -> dict[str, Measured]:
    found = ((row.name, row.paper(column)) for row in ROWS)
    return {name: Measured(paper.win_rate, paper.standard_error) for name, paper in found if paper}


def ours(entries: Mapping[tuple[str, Column], Entry], column: Column, measure: str) -> dict[str, Measured]:
    cells = {row.name: entries[row.name, column].cells for row in ROWS if (row.name, column) in entries}
    return {
        name: Measured(found[measure].mean, found[measure].error)
        for name, found in cells.items()
        if measure in found
    }


def agreement(first: str, second: str, columns: Mapping[str, Mapping[str, Measured]]) -> Agreement | None:
    """None where fewer than three methods have both numbers."""
    a, b = columns[first], columns[second]
    common = tuple(name for name in a if name in b)
    if len(common) < MIN_METHODS:
        return None
    found = rank_bootstrap([a[name] for name in common], [b[name] for name in common], seed=0, draws=DRAWS)
    return Agreement(first, second, common, found)


PAIRS = (
    ("ours, sim", "ours, human"),
    ("gold, sim", "gold, human"),
    ("ours, sim", "gold, sim"),
    ("ours, human", "gold, human"),
    ("ours, sim", "paper, sim"),
    ("ours, human", "paper, human"),
    ("paper, sim", "paper, human"),
)


def table(scale: str, seeds: Sequence[int], outcomes: Sequence[Outcome], notes: Iterable[str] = ()) -> Table:
    """The table of whatever runs have ended."""
    seconds = seconds_alone(outcomes)
    groups: dict[tuple[str, Column], list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault((outcome.planned.row.name, outcome.planned.column), []).append(outcome)
    entries = {place: entry(group, seconds) for place, group in groups.items()}
    columns: dict[str, dict[str, Measured]] = {}
    for column in COLUMNS:
        columns[f"paper, {column}"] = published(column)
        columns[f"ours, {column}"] = ours(entries, column, "win_rate")
        columns[f"gold, {column}"] = ours(entries, column, "gold")
    agreements = [found for a, b in PAIRS if (found := agreement(a, b, columns))]
    return Table(
        scale,
        tuple(seeds),
        entries,
        {title: ranking(values) for title, values in columns.items()},
        agreements,
        tuple(notes),
    )


def as_json(shown: Table) -> dict[str, Any]:
    """`table2.json`, without the stages of the runs: their folders are named."""

    def column(row: str, name: Column) -> dict[str, Any] | None:
        return asdict(shown.entries[row, name]) if (row, name) in shown.entries else None

    rows = []
    for row in ROWS:
        papers = {name: row.paper(name) for name in COLUMNS}
        rows.append(
            {
                "row": row.name,
                "label": row.label,
                "overrides": row.overrides,
                "paper": {name: asdict(paper) if paper else None for name, paper in papers.items()},
                "ours": {name: column(row.name, name) for name in COLUMNS},
                "ranks": {title: ranks.get(row.name) for title, ranks in shown.ranks.items()},
            }
        )
    return {
        "scale": shown.scale,
        "seeds": shown.seeds,
        "rows": rows,
        "agreement": [asdict(found) for found in shown.agreements],
        "notes": shown.notes,
    }
