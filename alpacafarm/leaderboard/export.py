"""Entries as the files that AlpacaEval keeps of a model, in its own layout."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from alpacafarm.data.annotations import write_annotations, write_model_outputs
from alpacafarm.errors import SpecError
from alpacafarm.leaderboard.entries import Entry


def write(folder: Path, found: Sequence[Entry]) -> list[Path]:
    """MODEL/model_outputs.json, MODEL/reference_outputs.json and MODEL/JUDGE/annotations.json.

    SpecError where a file tells no texts: AlpacaEval has no use for verdicts on unknown answers.
    """
    written: dict[Path, Entry] = {}
    for entry in found:
        # One verdict on each instruction: that is what a row of these files is.
        rows = [
            replace(rows[0], row=identity, baseline=entry.baseline, model=entry.name, judge=entry.judge)
            for identity, rows in entry.rows.items()
        ]
        if any(row.instruction is None or row.output_1 is None or row.output_2 is None for row in rows):
            raise SpecError(
                f"{entry.source}: rows without instruction, output_1 and output_2 cannot be exported; name "
                "files that hold the texts"
            )
        model = folder / _file_name(entry.name)
        target = model / _file_name(entry.judge) / "annotations.json"
        if target in written:
            raise SpecError(
                f"{target}: {entry.source} and {written[target].source} would both be written there; export "
                "them one by one"
            )
        written[target] = entry
        write_annotations(target, rows)
        write_model_outputs(model / "model_outputs.json", rows)
        write_model_outputs(model / "reference_outputs.json", rows, baseline=True)
    return list(written)


def _file_name(name: str) -> str:
    """Names may hold slashes and what else no file may."""
    return re.sub(r"[^\w.+-]+", "_", name).strip(".") or "_"
