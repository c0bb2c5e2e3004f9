"""Whose verdicts belong together: one entry for each model under one judge against one set of references."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from alpacafarm.data.annotations import Annotation
from alpacafarm.leaderboard.files import Source

MOST_NAMED = 3  # annotators that are named one by one


@dataclass(frozen=True)
class Entry:
    """`rows` by the instruction's identity; several verdicts on one instruction are averaged in the rates."""

    name: str
    judge: str
    baseline: str
    rows: Mapping[str, Sequence[Annotation]]
    source: str
    reference_set: int = 1  # which of several baselines that have one name

    @property
    def reference(self) -> str:
        return self.baseline if self.reference_set == 1 else f"{self.baseline}, set {self.reference_set}"

    def all_rows(self) -> list[Annotation]:
        return [row for rows in self.rows.values() for row in rows]


def entries(sources: Sequence[Source], judge: str | None = None) -> list[Entry]:
    """In the order of the sources. `judge` names the one behind rows that name nobody."""
    found: list[Entry] = []
    for source in sources:
        for part in _parts(source, judge):
            _add(part, found)
    return _by_reference(found)


def _parts(source: Source, judge: str | None) -> list[Entry]:
    groups: dict[tuple[str, str], list[Annotation]] = {}
    for row in source.rows:
        model = source.name if source.is_run or row.model is None else row.model
        groups.setdefault((model, row.baseline or "baseline"), []).append(row)
    parts = []
    for (model, baseline), rows in groups.items():
        for name, judged in _by_judge(rows, judge or f"unknown ({source.label})").items():
            short = model if judged[0].model or source.is_run else _without_judge(model, name)
            parts.append(Entry(short, name, baseline, _by_identity(judged), source.label))
    return parts


def _without_judge(file_name: str, judge: str) -> str:
    """AlpacaEval's own files name the judge and then the model."""
    return file_name.removesuffix(f"/{judge}").rpartition(f"{judge}_")[2] or file_name


def _by_judge(rows: Sequence[Annotation], unknown: str) -> dict[str, list[Annotation]]:
    """Annotators of different pairs are a pool, and one judge; those that read the same are several."""
    told: dict[str, list[Annotation]] = {}
    silent: list[Annotation] = []
    for row in rows:
        if row.judge is None:
            silent.append(row)
        else:
            told.setdefault(row.judge, []).append(row)
    by_annotator: dict[str, list[Annotation]] = {}
    for row in silent:
        by_annotator.setdefault(row.annotator or unknown, []).append(row)
    seen = [pair for found in by_annotator.values() for pair in set(map(_pair, found))]
    if len(by_annotator) > 1 and len(seen) == len(set(seen)):
        by_annotator = {_pool_name(sorted(by_annotator)): silent}
    for name, found in by_annotator.items():
        told.setdefault(name, []).extend(found)
    return told


def _pair(row: Annotation) -> tuple[str | None, ...]:
    """What tells whether two annotators read the same: the row's identity, or the texts where it has none."""
    if row.row is None and row.instruction is not None:
        return row.instruction, row.output_1, row.output_2
    return (_identity(row),)


def _identity(row: Annotation) -> str:
    return f"row {row.place}" if row.row is None else row.row


def _pool_name(annotators: Sequence[str]) -> str:
    named, others = annotators[:MOST_NAMED], annotators[MOST_NAMED:]
    return "pool of " + ", ".join(named) + (f" and {len(others)} more" if others else "")


def _by_identity(rows: Sequence[Annotation]) -> dict[str, list[Annotation]]:
    found: dict[str, list[Annotation]] = {}
    for row in rows:
        found.setdefault(_identity(row), []).append(row)
    return found


def _add(part: Entry, found: list[Entry]) -> None:
    """Puts a file's part to the entry that it goes on with, or beside it where it is another."""
    mine = (part.judge, part.baseline, part.name)
    for i, entry in enumerate(found):
        if (entry.judge, entry.baseline, entry.name) == mine and (rows := _together(entry, part)):
            found[i] = replace(entry, rows=rows)
            return
    if any((entry.judge, entry.baseline, entry.name) == mine for entry in found):
        part = replace(part, name=f"{part.name} ({part.source})")
    found.append(part)


def _together(entry: Entry, part: Entry) -> dict[str, list[Annotation]] | None:
    """The rows of both: other rows, or more verdicts on the same pairs. None where the answers differ."""
    rows = {identity: list(row) for identity, row in entry.rows.items()}
    shared = [identity for identity in part.rows if identity in rows]
    by_place = all(row.row is None for row in part.all_rows())
    if shared and by_place and not any(_same_instruction(rows[i][0], part.rows[i][0]) for i in shared):
        part_rows = {f"{part.source}, {identity}": row for identity, row in part.rows.items()}
    elif all(_same_pair(rows[i][0], part.rows[i][0]) for i in shared):
        part_rows = dict(part.rows)
    else:
        return None
    for identity, more in part_rows.items():
        rows.setdefault(identity, []).extend(more)
    return rows


def _same_instruction(a: Annotation, b: Annotation) -> bool:
    return a.instruction is None or b.instruction is None or a.instruction == b.instruction


def _same_pair(a: Annotation, b: Annotation) -> bool:
    texts = (a.output_1, a.output_2) == (b.output_1, b.output_2)
    lengths = (a.length_1, a.length_2) == (b.length_1, b.length_2)
    return _same_instruction(a, b) and texts and lengths


def _by_reference(found: Sequence[Entry]) -> list[Entry]:
    """Tells apart baselines that have one name but not the same answers."""
    known: dict[tuple[str, str], list[dict[str, Annotation]]] = {}
    numbered = []
    for entry in found:
        sets = known.setdefault((entry.judge, entry.baseline), [])
        mine = {identity: rows[0] for identity, rows in entry.rows.items()}
        number = next((i for i, answers in enumerate(sets) if _same_reference(answers, mine)), len(sets))
        if number == len(sets):
            sets.append({})
        sets[number] |= mine
        numbered.append(replace(entry, reference_set=number + 1))
    return numbered


def _same_reference(a: Mapping[str, Annotation], b: Mapping[str, Annotation]) -> bool:
    shared = a.keys() & b.keys()
    return bool(shared) and all(
        _same_instruction(a[row], b[row])
        and (a[row].output_1, a[row].length_1) == (b[row].output_1, b[row].length_1)
        for row in shared
    )
