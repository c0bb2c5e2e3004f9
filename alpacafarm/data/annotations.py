"""Judged pairs as AlpacaEval writes them (`annotations.json`), in and out. Output 1 is the baseline's."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpacafarm.data.files import located
from alpacafarm.data.rows import write_text
from alpacafarm.errors import SpecError

NAMES = ("annotations.json", "annotations.json.gz")
INSTEAD = (
    "an annotation has preference, output_1, output_2, and where they are known generator_1, generator_2, "
    "annotator"
)


@dataclass(frozen=True)
class Annotation:
    """What a judge said of one pair. Other programs' files may leave out all but the preference.

    `row` is the instruction's identity (its `id`, or AlpacaEval's `index`), None where the file has neither;
    `place` counts the file's rows. `judge` is who is behind the annotators, each of whom reads some rows.
    """

    row: str | None
    place: int
    preference: float | None  # 1 the baseline is better, 2 the model; None: no verdict
    instruction: str | None = None  # with its input, as AlpacaEval merges them
    output_1: str | None = None
    output_2: str | None = None
    length_1: int | None = None  # characters
    length_2: int | None = None
    baseline: str | None = None
    model: str | None = None
    annotator: str | None = None
    judge: str | None = None
    dataset: str = ""
    failure: str | None = None  # how there came to be no verdict


def merged(instruction: str, given: str) -> str:
    """One text of an instruction and its input, as alpaca-eval has it."""
    return f"{instruction}\n\n{given}" if given else instruction


def write_annotations(path: Path, rows: Iterable[Annotation]) -> None:
    """A JSON list that AlpacaEval reads, every row, also those without a verdict; its keys and a few more."""
    told = [
        {
            "id": row.row,
            "instruction": row.instruction,
            "dataset": row.dataset,
            "output_1": row.output_1,
            "generator_1": row.baseline,
            "output_2": row.output_2,
            "generator_2": row.model,
            "annotator": row.annotator,
            "judge": row.judge,
            "preference": row.preference,
            "failure": row.failure,
        }
        for row in rows
    ]
    write_text(path, json.dumps(told, ensure_ascii=False, indent=1) + "\n")


def write_model_outputs(path: Path, rows: Sequence[Annotation], *, baseline: bool = False) -> None:
    """The model's (or the baseline's) answers as AlpacaEval's `model_outputs.json`."""
    told = [
        {
            "instruction": row.instruction,
            "output": row.output_1 if baseline else row.output_2,
            "generator": row.baseline if baseline else row.model,
            "dataset": row.dataset,
        }
        for row in rows
    ]
    write_text(path, json.dumps(told, ensure_ascii=False, indent=1) + "\n")


def read_annotations(path: Path) -> list[Annotation]:
    """SpecError names file, row and reason of one that is no annotation."""
    rows: list[Annotation] = []
    known: dict[str, str] = {}
    for place, (where, told) in enumerate(located(str(path))):
        row = annotation(told, place, where)
        named = row.row is not None and row.instruction is not None
        if named and known.setdefault(str(row.row), str(row.instruction)) != row.instruction:
            raise SpecError(
                f"{where}: id (or index) {row.row} is that of an earlier row with another instruction; give "
                "each instruction its own, or leave both columns out"
            )
        rows.append(row)
    if not rows:
        raise SpecError(f"{path}: the file has no rows; {INSTEAD}")
    return rows


def annotation(row: Any, place: int, where: str) -> Annotation:
    if not isinstance(row, Mapping):
        raise SpecError(f"{where}: holds a {type(row).__name__}; {INSTEAD}")
    if "preference" not in row:
        raise SpecError(f"{where}: {_no_verdict(row)}")
    texts = {name: _text(row, name, where) for name in ("instruction", "output_1", "output_2")}
    given = _text(row, "input", where)
    if texts["instruction"] is not None and given:
        texts["instruction"] = merged(texts["instruction"], given)
    told = (row.get(name) for name in ("id", "index"))
    identity = next((value for value in told if not _is_missing(value) and value != ""), None)
    return Annotation(
        row=None if identity is None else str(identity),
        place=place,
        preference=_preference(row["preference"], where),
        **texts,
        length_1=_length(row, "len_1", texts["output_1"], where),
        length_2=_length(row, "len_2", texts["output_2"], where),
        baseline=_text(row, "generator_1", where),
        model=_text(row, "generator_2", where),
        annotator=_text(row, "annotator", where),
        judge=_text(row, "judge", where),
        dataset=_text(row, "dataset", where) or "",
        failure=_text(row, "failure", where),
    )


def _no_verdict(row: Mapping[str, Any]) -> str:
    have = ", ".join(map(str, row)) or "nothing"
    if "output" in row:
        return (
            "these are a model's outputs, which nobody has judged; have them judged with "
            f"alpacafarm.alpaca_leaderboard, or name a file of judged pairs: {INSTEAD}"
        )
    return f"has no preference; {INSTEAD}; the row has {have}"


def _preference(value: Any, where: str) -> float | None:
    """Null and NaN are failures, 0 is how older files write a tie."""
    if _is_missing(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not (1 <= value <= 2 or value == 0):
        raise SpecError(
            f"{where}: preference={value!r} must be 1, 2, 1.5 (or 0) for a tie, a number between 1 and 2, or "
            "null where there is no verdict"
        )
    return 1.5 if value == 0 else float(value)


def _is_missing(value: Any) -> bool:
    """Nothing, or what a DataFrame that is written as JSON has in its place."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _text(row: Mapping[str, Any], name: str, where: str) -> str | None:
    value = row.get(name)
    if _is_missing(value):
        return None
    if not isinstance(value, str):
        raise SpecError(f"{where}: {name}={value!r} must be text")
    return value


def _length(row: Mapping[str, Any], name: str, text: str | None, where: str) -> int | None:
    """Of the text, or as the file tells it where it leaves the texts out."""
    if text is not None:
        return len(text)
    value = row.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise SpecError(f"{where}: {name}={value!r} must be a count of characters")
    return value


def failures(rows: Iterable[Annotation]) -> dict[str, int]:
    """How many rows have no verdict, by the kind of failure: what stands before its colon."""
    return failure_counts((row.failure or "no verdict") for row in rows if row.preference is None)


def failure_counts(told: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for text in told:
        kind = text.partition(":")[0]
        counts[kind] = counts.get(kind, 0) + 1
    return dict(sorted(counts.items()))
