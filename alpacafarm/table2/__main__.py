"""The command: `python -m alpacafarm.table2 [--seeds 1,2,3] [--scale world|7b] [--dry] [KEY=VALUE ...]`.

Writes table2.json, table2.md and table2.html into `--out` after every run, and the runs below it. The same
command goes on where it was. Exit codes are those of `alpacafarm.run`, the first of the runs that failed.
"""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from alpacafarm import run
from alpacafarm.artifacts.manifest import to_json
from alpacafarm.data.rows import write_text
from alpacafarm.errors import AlpacaFarmError
from alpacafarm.job import exit_code, not_written
from alpacafarm.table2 import page, plan, runs, table
from alpacafarm.table2.progress import Progress
from alpacafarm.table2.rows import SCALES, TRAINED
from alpacafarm.table2.runs import Asked, Outcome


def main(arguments: Sequence[str] | None = None) -> int:
    asked, dry = parsed(arguments)
    run.settle()
    warnings = logging.StreamHandler(sys.stderr)
    warnings.setLevel(logging.WARNING)
    logging.basicConfig(level=logging.INFO, format="[%(levelname)s] %(message)s", handlers=[warnings])
    try:
        return perform(asked, dry)
    except AlpacaFarmError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(not_written(error, f"--out {asked.out}"), file=sys.stderr)
        return AlpacaFarmError.exit_code
    except KeyboardInterrupt:
        print(run.INTERRUPTED.format("the same command"), file=sys.stderr)
        return 130


def parsed(arguments: Sequence[str] | None) -> tuple[Asked, bool]:
    parser = argparse.ArgumentParser(prog="python -m alpacafarm.table2", description=__doc__)
    parser.add_argument("--scale", choices=list(SCALES), default="world")
    parser.add_argument("--seeds", type=_numbers, default=(1, 2, 3), metavar="S,...", help="default: 1,2,3")
    parser.add_argument("--rows", type=_names, default=tuple(TRAINED), metavar="ROW,...", help="default: all")
    parser.add_argument("--out", type=Path, default=Path("table2"), help="default: table2")
    parser.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="runs at the same time; default: 4 whose stages are SLURM jobs; on this machine one for each "
        "core, at most 4, and 1 of 7b, which takes all GPUs",
    )
    parser.add_argument("--dry", action="store_true", help="print the plan of all runs and what it will cost")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="for every run, such as store=DIR; human:KEY=VALUE for those on human feedback",
    )
    found = parser.parse_args(arguments)
    overrides = tuple(found.overrides)
    return Asked(found.scale, found.seeds, found.rows, found.out, overrides, found.jobs), found.dry


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text.split(",")))


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} must be whole numbers, such as 1,2,3") from None


def perform(asked: Asked, dry: bool) -> int:
    """All runs are checked before the first begins."""
    items = runs.planned(asked)
    notes = SCALES[asked.scale].notes
    if dry:
        plan.show(items, notes)
        return 0

    items = runs.with_one_budget(items)

    def update(outcomes: Sequence[Outcome]) -> None:
        shown = table.table(asked.scale, asked.seeds, outcomes, notes)
        write_text(asked.out / "table2.json", to_json(table.as_json(shown)))
        write_text(asked.out / "table2.md", page.markdown(shown))
        write_text(asked.out / "table2.html", page.html(shown))

    jobs = runs.suitable_jobs(asked, items)
    outcomes = runs.carry_out(items, Progress(len(items), jobs=jobs), update, jobs)
    print(f"Table: {asked.out / 'table2.html'}, also as .md and .json")
    return exit_code([outcome.exit_code for outcome in outcomes if outcome.failure is not None])


if __name__ == "__main__":
    sys.exit(main())
