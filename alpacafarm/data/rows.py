"""Rows as JSON lines, in and out."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from alpacafarm.artifacts.files import write_aside
from alpacafarm.errors import ArtifactError
from alpacafarm.types import Example, Output, Pair, Preference, ScoredPair, Thumb, Verdict

Row = TypeVar("Row", Example, Output, Pair, Preference, ScoredPair, Thumb, Verdict)


def write_text(path: Path, text: str) -> None:
    """Writes aside and renames, so that a reader sees the whole file or none. Makes the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_aside(path, text)


def write_rows(path: Path, rows: Iterable[Example | Output | Pair | ScoredPair | Verdict]) -> None:
    write_text(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path, row: type[Row]) -> list[Row]:
    """Rows that `write_rows` wrote; ArtifactError names the file and line of one that does not fit."""
    rows = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                rows.append(row(**json.loads(line)))
            except (TypeError, ValueError) as error:
                raise ArtifactError(f"{path}:{number} is not a {row.__name__} row: {error}") from None
    return rows


def write_outputs(path: Path, outputs: Sequence[Output]) -> None:
    """A JSON list as AlpacaEval reads model outputs; our further columns stand beside its own."""
    write_text(path, json.dumps([asdict(output) for output in outputs], ensure_ascii=False, indent=1) + "\n")


def read_outputs(path: Path) -> list[Output]:
    rows: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return [Output(**row) for row in rows]
