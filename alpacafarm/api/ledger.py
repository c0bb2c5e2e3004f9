"""What was spent, read from the ledger of a store."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path

from alpacafarm.api.store import NAME


@dataclass(frozen=True)
class Line:
    """The calls of one run, stage and annotator. `unknown` ones may have been answered, and count as paid."""

    run: str
    stage: str
    key: str
    annotator: str
    model: str
    calls: int
    answered: int
    failed: int
    unknown: int
    in_flight: int
    tokens_in: int
    tokens_out: int
    price_usd: float


QUERY = """
SELECT run, stage_name, stage, annotator, model, sum(calls), sum(state = 'answered'),
       sum(state = 'failed'), sum(state = 'unknown'), sum(state = 'sent'),
       sum(tokens_in), sum(tokens_out), sum(price) / 1e9
FROM attempts GROUP BY run, stage, annotator, model ORDER BY min(id)
"""


def ledger(folder: Path) -> list[Line]:
    """In the order of the first calls; nothing where nothing was ever asked. Changes nothing."""
    file = folder / NAME
    if not file.is_file():
        return []
    db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        return [Line(*row) for row in db.execute(QUERY)]
    finally:
        db.close()
