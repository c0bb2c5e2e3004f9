"""The command: `python -m alpacafarm.leaderboard FILE... [--json]`.

A FILE holds judged pairs (our annotations.jsonl, or AlpacaEval's annotations.json, also packed with gzip), or
it is the folder of a run, of several runs, or of such files. Each judge has its own tables.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alpacafarm.artifacts.manifest import to_json
from alpacafarm.errors import AlpacaFarmError
from alpacafarm.leaderboard import export, show, standings
from alpacafarm.leaderboard.agreement import Analysis, analyses
from alpacafarm.leaderboard.entries import Entry, entries
from alpacafarm.leaderboard.files import sources
from alpacafarm.leaderboard.published import read_published
from alpacafarm.report.status import console


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parsed(arguments)
    try:
        perform(asked)
    except AlpacaFarmError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"{error}; choose a folder that can be written to", file=sys.stderr)
        return AlpacaFarmError.exit_code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m alpacafarm.leaderboard", description=__doc__)
    parser.add_argument("file", nargs="+", type=Path, help="annotations, or the folder of a run")
    parser.add_argument("--json", action="store_true", help="print a list of objects")
    parser.add_argument("--head-to-head", action="store_true", help="also compare the models with each other")
    parser.add_argument(
        "--agreement", type=Path, metavar="GOLD", help="also compare each judge with the one of this file"
    )
    parser.add_argument("--judge", metavar="NAME", help="who judged rows that name no annotator")
    parser.add_argument(
        "--difficulty",
        type=Path,
        metavar="FILE",
        help="AlpacaEval's instruction_difficulty.csv of its 805 rows",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="AlpacaEval's weights, instead of a fit; needs --difficulty",
    )
    parser.add_argument("--no-length-control", action="store_true", help="fit nothing: win rates only")
    parser.add_argument(
        "--export", type=Path, metavar="DIR", help="write annotations and outputs as AlpacaEval keeps them"
    )
    asked = parser.parse_args(arguments)
    if asked.weights and not asked.difficulty:
        parser.error("--weights needs --difficulty: the win rate is a mean over the rows' difficulties")
    return asked


def perform(asked: argparse.Namespace) -> None:
    found = entries(sources(asked.file), asked.judge)
    standings.check_names(found)
    given = read_published(asked.difficulty, asked.weights) if asked.difficulty else None
    tables = standings.tables(found, control=not asked.no_length_control, given=given)
    told: list[Analysis] = []
    if asked.agreement:
        told = analyses(found, entries(sources([asked.agreement]), asked.judge), str(asked.agreement))
    written = export.write(asked.export, found) if asked.export else []
    if asked.json:
        print(to_json(_json(asked, found, tables, told)), end="")
    else:
        _show(asked, found, tables, told)
        print(*(f"Written: {path}" for path in written), sep="\n", end="\n" if written else "")


def _json(
    asked: argparse.Namespace,
    found: Sequence[Entry],
    tables: Sequence[Sequence[standings.Standing]],
    told: Sequence[Analysis],
) -> Any:
    """The list of models; an object with it where more was asked for."""
    rows = standings.as_rows(tables)
    more: dict[str, Any] = {}
    if asked.head_to_head:
        more["differences"] = [
            {
                "judge": t[0].entry.judge,
                "reference": t[0].entry.reference,
                "name": a,
                "less": b,
                **asdict(one),
            }
            for t in tables
            for (a, b), one in standings.differences(t).items()
        ]
        more["head_to_head"] = [
            {"judge": judge, "name": a, "preferred_to": b, **asdict(duel)}
            for judge in dict.fromkeys(entry.judge for entry in found)
            for (a, b), duel in standings.duels(found, judge)[1].items()
        ]
    if asked.agreement:
        more["agreement"] = [asdict(one) for one in told]
    return {"leaderboard": rows, **more} if more else rows


def _show(
    asked: argparse.Namespace,
    found: Sequence[Entry],
    tables: Sequence[Sequence[standings.Standing]],
    told: Sequence[Analysis],
) -> None:
    out = console()
    show.show(tables, out)
    if asked.head_to_head:
        for table in tables:
            show.show_differences(table, standings.differences(table), out)
        for judge in dict.fromkeys(entry.judge for entry in found):
            show.show_duels(judge, *standings.duels(found, judge), out)
    if told:
        show.show_analyses(told, out)


if __name__ == "__main__":
    sys.exit(main())
