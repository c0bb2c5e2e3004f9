"""Several runs side by side: `python -m alpacafarm.compare FOLDER... [--out DIR]`.

A FOLDER is a run's, a sweep's, or any that holds some. `comparison.json` and `.html` are written into DIR.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from alpacafarm.errors import AlpacaFarmError, SpecError


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m alpacafarm.compare", description=__doc__)
    parser.add_argument("folder", nargs="+", type=Path, help="a run's folder, or one that holds several")
    parser.add_argument("--out", type=Path, default=Path(), help="where the table goes (default: here)")
    parser.add_argument("--name", default="comparison", help="of the two files (default: comparison)")
    asked = parser.parse_args(arguments)
    from alpacafarm.report import comparison

    try:
        runs = comparison.write(asked.out, asked.name, asked.folder)
    except (ValueError, OSError, AlpacaFarmError) as error:
        print(error, file=sys.stderr)
        return SpecError.exit_code
    if not runs:
        places = ", ".join(map(str, asked.folder))
        print(f"{places}: no run below; name folders that hold a spec.json", file=sys.stderr)
        return SpecError.exit_code
    comparison.show(runs)
    print(f"Report: {asked.out / asked.name}.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
