"""Verdicts read back from a file of judged pairs."""

from collections.abc import Sequence
from pathlib import Path

from alpacafarm.data.files import located, preference
from alpacafarm.errors import JudgeError
from alpacafarm.types import Pair, Preference, Verdict

Texts = tuple[str, str, str, str]


class RecordedVerdicts:
    """Answers only pairs that the file holds, in either order; any other is a typed failure."""

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise JudgeError(f"judge.path={path}: there is no such file; name a file of judged pairs")
        self.name = f"recorded:{Path(path).name}"
        rows = [preference(row, where, where) for where, row in located(path)]
        self.known: dict[Texts, Preference] = {
            (r.instruction, r.input, r.output_1, r.output_2): r for r in rows
        }

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return [self._verdict(pair) for pair in pairs]

    def _verdict(self, pair: Pair) -> Verdict:
        found = self.known.get((pair.instruction, pair.input, pair.output_1, pair.output_2))
        if found:
            return Verdict(found.preference, found.annotator)
        swapped = self.known.get((pair.instruction, pair.input, pair.output_2, pair.output_1))
        if swapped:
            return Verdict(3 - swapped.preference, swapped.annotator)
        return Verdict(None, self.name, failure="not recorded")
