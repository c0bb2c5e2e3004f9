"""Verdicts read back from a file of judged pairs."""

from collections.abc import Sequence
from pathlib import Path

from alpacafarm.data.files import located, preference
from alpacafarm.errors import JudgeError
from alpacafarm.types import Pair, Verdict

Texts = tuple[str, str, str, str]


class RecordedVerdicts:
    """Answers only pairs that the file holds, in either order; any other is a typed failure.

    JudgeError where the file holds different verdicts on one pair.
    """

    def __init__(self, path: str) -> None:
        if not Path(path).is_file():
            raise JudgeError(f"judge.path={path}: there is no such file; name a file of judged pairs")
        self.name = f"recorded:{Path(path).name}"
        self.known: dict[Texts, Verdict] = {}
        for where, raw in located(path):
            row = preference(raw, where, where)
            told = self._verdict(row)
            if told is not None and told.preference != row.preference:
                raise JudgeError(
                    f"{where}: preference={row.preference:g}, and the file has {told.preference:g} for this "
                    "pair already; keep one verdict for each pair, such as their mean"
                )
            texts = (row.instruction, row.input, row.output_1, row.output_2)
            self.known[texts] = Verdict(row.preference, row.annotator)

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        return [self._verdict(pair) or Verdict(None, self.name, failure="not recorded") for pair in pairs]

    def _verdict(self, pair: Pair) -> Verdict | None:
        found = self.known.get((pair.instruction, pair.input, pair.output_1, pair.output_2))
        swapped = self.known.get((pair.instruction, pair.input, pair.output_2, pair.output_1))
        if found is not None or swapped is None:
            return found
        assert swapped.preference is not None
        return Verdict(3 - swapped.preference, swapped.annotator)
