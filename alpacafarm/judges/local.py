"""A causal language model of this machine as judge: the probabilities of the two labels after the prompt."""

from collections.abc import Callable, Mapping, Sequence

from alpacafarm.judges.answers import FIRST, SECOND, weighted
from alpacafarm.judges.template import Template
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Pair, Verdict

Messages = Sequence[Mapping[str, str]]
# Of each conversation the log-probabilities (nats) of the labels as the answer's beginning; None where it is
# longer than the model can read.
LabelLogprobs = Callable[[Sequence[Messages], Sequence[str]], list[Sequence[float] | None]]


class LocalModelJudge:
    """The verdict is 1 + p(second) / (p(first) + p(second)), of the answers in the order they are shown in.

    Which one is shown first is a coin that belongs to the pair, whichever of its outputs comes first; with
    `both_orders` the verdict is the mean over both. Nothing is sampled.
    """

    def __init__(
        self, template: Template, logprobs: LabelLogprobs, *, both_orders: bool, seed: int, name: str
    ) -> None:
        self.name = name
        self.template, self.logprobs = template, logprobs
        self.both_orders, self.seed = both_orders, seed

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        orders = [[s, not s] if self.both_orders else [s] for s in map(self._is_swapped, pairs)]
        asked = [(pair, s) for pair, swaps in zip(pairs, orders, strict=True) for s in swaps]
        told = iter(self.logprobs([self._messages(pair, s) for pair, s in asked], (FIRST, SECOND)))
        return [self._verdict([(s, next(told)) for s in swaps]) for swaps in orders]

    def _is_swapped(self, pair: Pair) -> bool:
        lower, higher = sorted((pair.output_1, pair.output_2))
        coin = stable_seed("order", self.seed, pair.instruction, pair.input, lower, higher) % 2
        return pair.output_2 == (higher if coin else lower)

    def _messages(self, pair: Pair, is_swapped: bool) -> Messages:
        first, second = (pair.output_1, pair.output_2)[:: -1 if is_swapped else 1]
        instruction = pair.instruction
        if pair.input and not self.template.has_input:
            instruction = f"{pair.instruction}\n\n{pair.input}"
        shown = {"instruction": instruction, "input": pair.input, "output_1": first, "output_2": second}
        return self.template.messages([shown])

    def _verdict(self, told: Sequence[tuple[bool, Sequence[float] | None]]) -> Verdict:
        preferences = []
        for is_swapped, logprobs in told:
            if logprobs is None:
                return Verdict(None, self.name, failure="too long: the model has no positions for the prompt")
            preference = weighted(dict(zip((FIRST, SECOND), logprobs, strict=True)))
            preferences.append(3 - preference if is_swapped else preference)
        return Verdict(
            sum(preferences) / len(preferences),
            self.name,
            contradicted=min(preferences) < 1.5 < max(preferences),
        )
