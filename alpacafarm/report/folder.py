"""A run's folder, written and read back: what was asked for, and what came of it."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpacafarm.artifacts.manifest import to_json
from alpacafarm.data.rows import write_text
from alpacafarm.report.result import Result

SPEC, OVERRIDES, RESULT, REPORT = "spec.json", "overrides.json", "result.json", "report.html"
FAILURE = "failure.json"


@dataclass(frozen=True)
class RunFolder:
    """`result` is None for a run that failed, which has a `failure`, and for one that has not ended.

    One that `waits` for people has what they are asked for as its failure.
    """

    path: Path
    overrides: Mapping[str, str]
    spec: Mapping[str, Any]
    result: Result | None
    failure: str | None
    waits: bool = False

    @property
    def state(self) -> str:
        if self.result or not self.failure:
            return "done" if self.result else "unfinished"
        return "waiting" if self.waits else "failed"


def begin(folder: Path, spec: str, overrides: Sequence[str]) -> None:
    """Writes what is asked for. What an earlier run left in the folder is no result of this one."""
    for name in (RESULT, FAILURE):
        (folder / name).unlink(missing_ok=True)
    write_text(folder / SPEC, spec)
    write_text(folder / OVERRIDES, to_json(list(overrides)))


def note_failure(folder: Path, message: str, *, waits: bool = False) -> None:
    write_text(folder / FAILURE, to_json({"message": message, "waits": waits}))


def find(places: Iterable[Path]) -> list[Path]:
    """Run folders: each place itself, or those below it, `2` before `10`."""
    found: dict[Path, None] = {}
    for place in places:
        below = {path.parent for path in place.rglob(SPEC)}
        found |= dict.fromkeys(sorted(below, key=_counting))
    return list(found)


def _counting(path: Path) -> list[tuple[int, str]]:
    """Numbers in a path compare as numbers."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", str(path))]


def read(path: Path) -> RunFolder:
    """ValueError names a file that cannot be read."""
    overrides = (str(text).partition("=") for text in _json(path / OVERRIDES, list))
    failure = _json(path / FAILURE, dict)
    result = path / RESULT
    return RunFolder(
        path,
        {key.lstrip("+~"): value for key, _, value in overrides},
        _json(path / SPEC, dict),
        _result(result) if result.is_file() else None,
        failure.get("message"),
        failure.get("waits", False),
    )


def read_or_damaged(path: Path) -> RunFolder:
    """One that cannot be read is that of a run which failed by it."""
    try:
        return read(path)
    except ValueError as error:
        return RunFolder(path, {}, {}, None, f"damaged: {error}")


def _result(path: Path) -> Result:
    try:
        return Result.from_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _json(path: Path, kind: type) -> Any:
    """The content, or an empty one where there is no such file."""
    if not path.is_file():
        return kind()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); was it written by another program?") from None
    if not isinstance(content, kind):
        raise ValueError(f"{path}: holds a {type(content).__name__}, a {kind.__name__} is required")
    return content
