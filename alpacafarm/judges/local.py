"""A causal language model of this machine as judge: the probabilities of the two labels after the prompt."""

from collections.abc import Callable, Mapping, Sequence

from alpacafarm.judges.answers import FIRST, SECOND, Unparsable, weighted
from alpacafarm.judges.showing import is_swapped, shown
from alpacafarm.judges.template import Template
from alpacafarm.types import Pair, Verdict

Messages = Sequence[Mapping[str, str]]
# Of each conversation the log-probabilities (nats) of the labels as the answer's beginning; None where it is
# longer than the model can read.
LabelLogprobs = Callable[[Sequence[Messages], Sequence[str]], list[Sequence[float] | None]]


class LocalModelJudge:
    """The verdict is 1 + p(second) / (p(first) + p(second)), of the answers in the order they are shown in.

    With `both_orders` it is the mean over both. Nothing is sampled.
    """

    def __init__(
        self, template: Template, logprobs: LabelLogprobs, *, both_orders: bool, seed: int, name: str
    ) -> None:
        self.name = name
        self.template, self.logprobs = template, logprobs
        self.both_orders, self.seed = both_orders, seed

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        coins = [is_swapped(pair, self.seed) for pair in pairs]
        orders = [[s, not s] if self.both_orders else [s] for s in coins]
        asked = [(pair, s) for pair, swaps in zip(pairs, orders, strict=True) for s in swaps]
        prompts = [self.template.messages([shown(pair, self.template, swapped=s)]) for pair, s in asked]
        told = iter(self.logprobs(prompts, (FIRST, SECOND)))
        return [self._verdict([(s, next(told)) for s in swaps]) for swaps in orders]

    def _verdict(self, told: Sequence[tuple[bool, Sequence[float] | None]]) -> Verdict:
        preferences = []
        for swapped, logprobs in told:
            if logprobs is None:
                return Verdict(None, self.name, failure="too long: the model has no positions for the prompt")
            try:
                preference = weighted(dict(zip((FIRST, SECOND), logprobs, strict=True)))
            except Unparsable as error:
                return Verdict(None, self.name, failure=str(error))
            preferences.append(3 - preference if swapped else preference)
        return Verdict(
            sum(preferences) / len(preferences),
            self.name,
            contradicted=min(preferences) < 1.5 < max(preferences),
        )
