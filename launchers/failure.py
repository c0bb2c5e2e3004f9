"""What is known of a stage that failed: the error that a rank wrote, or the end of a log."""

import json
from pathlib import Path

from alpacafarm import errors
from alpacafarm.errors import AlpacaFarmError, StageError
from launchers.inline import located

LAST_WORDS_S = 5.0  # an error on all ranks is told by rank 0, and another rank may be the first to end
TAIL_LINES = 20
TAIL_BYTES = 64 * 2**10


def failure(folder: Path) -> AlpacaFarmError:
    """The error in the folder's `error.json`, as the type that it names."""
    told = json.loads((folder / "error.json").read_text(encoding="utf-8"))
    kind = vars(errors).get(told["type"])
    if not (isinstance(kind, type) and issubclass(kind, AlpacaFarmError)):
        kind = StageError
    return located(kind(told["message"]), folder)


def rank_log(folder: Path, rank: int) -> Path:
    """Where a process of the stage in `folder` says what it does."""
    return folder / f"rank{rank}.log"


def tail(path: Path) -> str:
    """The last lines of a log, indented; empty where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().decode(errors="replace").splitlines()[-TAIL_LINES:]
    return "\n".join(f"    {line}" for line in lines)
