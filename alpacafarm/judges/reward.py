"""A reward model as judge."""

import math
from collections.abc import Callable, Sequence

from alpacafarm.stats.calibration import preference_probability
from alpacafarm.types import Pair, Verdict


class RewardModelJudge:
    """Prefers the higher score; `soft` gives 1 plus the Bradley-Terry probability of the second output."""

    def __init__(
        self, score_texts: Callable[[Sequence[tuple[str, str, str]]], list[float]], *, soft: bool, name: str
    ) -> None:
        self.score_texts = score_texts
        self.soft = soft
        self.name = name

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        texts = [(p.instruction, p.input, output) for p in pairs for output in (p.output_1, p.output_2)]
        scores = self.score_texts(texts)
        return [self._verdict(a, b) for a, b in zip(scores[::2], scores[1::2], strict=True)]

    def _verdict(self, score_1: float, score_2: float) -> Verdict:
        if not (math.isfinite(score_1) and math.isfinite(score_2)):
            return Verdict(None, self.name, failure=f"no numbers: scores {score_1:g} and {score_2:g}")
        return Verdict(self._preference(score_1, score_2), self.name)

    def _preference(self, score_1: float, score_2: float) -> float:
        if self.soft:
            return 1 + preference_probability(score_1, score_2)
        return 1.5 if score_1 == score_2 else 1.0 + (score_2 > score_1)
