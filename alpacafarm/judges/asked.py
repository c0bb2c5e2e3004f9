"""A judge that asks a model behind an API to compare answers."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from alpacafarm.judges.answers import Unparsable, beginning, choice, label, logprobs
from alpacafarm.judges.showing import is_swapped, shown
from alpacafarm.judges.template import Template
from alpacafarm.judges.together import Comparing, finished
from alpacafarm.ports import Asker
from alpacafarm.request import Answer, Failure, Request
from alpacafarm.spec.judge import AskedJudge, Reading
from alpacafarm.types import Pair, Verdict

# Of an answer about so many pairs: 1 where the output that is shown first is better, 2 where the other is,
# 1.5 for a tie, between them a probability. Unparsable where it does not say.
Read = Callable[[Answer, int], Sequence[float]]
FILLER = {
    "instruction": "1+1=",
    "input": "",
    "output_1": "2",
    "output_2": "3",
}  # alpaca_eval.utils.DUMMY_EXAMPLE


@dataclass(frozen=True)
class Showing:
    """A pair (by its position) as the model sees it."""

    position: int
    is_swapped: bool


@dataclass(frozen=True)
class Said:
    """What came of one showing; `preference` is for the pair as it is, not as it was shown."""

    preference: float | None
    failure: str | None
    price_usd: float
    calls: int


class AskedModel:
    """Asks through `asker`. Equal outputs are a tie that nobody is asked about."""

    def __init__(self, spec: AskedJudge, asker: Asker, read: Read) -> None:
        self.name = spec.name
        self.spec = spec
        self.template = Template(spec.template)
        self.asker, self.read = asker, read

    def compare(self, pairs: Sequence[Pair]) -> list[Verdict]:
        """All processes call it, also those that have no pairs."""
        return finished(self.comparing(pairs))

    def comparing(self, pairs: Sequence[Pair]) -> Comparing:
        """The same in steps, one for each answer."""
        asked = list(self._batches(pairs))
        said: dict[int, list[Said]] = {}
        for i, told in self.asker.ask(self._request(batch, pairs) for batch in asked):
            for showing, one in zip(asked[i], self._said(told, asked[i]), strict=True):
                said.setdefault(showing.position, []).append(one)
            yield
        return [self._verdict(said.get(i)) for i in range(len(pairs))]

    def _batches(self, pairs: Sequence[Pair]) -> Iterator[list[Showing]]:
        """The showings of each prompt; the two orders of a pair are never in one."""
        differ = [i for i, pair in enumerate(pairs) if pair.output_1 != pair.output_2]
        for is_second in (False, True) if self.spec.both_orders else (False,):
            showings = [
                Showing(i, is_swapped(pairs[i], self.spec.seed, self.name) != is_second) for i in differ
            ]
            for start in range(0, len(showings), self.spec.pairs_per_prompt):
                yield showings[start : start + self.spec.pairs_per_prompt]

    def _request(self, batch: Sequence[Showing], pairs: Sequence[Pair]) -> Request:
        asked = [shown(pairs[one.position], self.template, swapped=one.is_swapped) for one in batch]
        asked += [FILLER] * (self.template.pairs - len(asked))
        model, parameters = self.spec.model, self.spec.parameters
        if self.spec.chat:
            return Request(model, messages=self.template.messages(asked), parameters=parameters)
        return Request(model, prompt=self.template.prompt(asked), parameters=parameters)

    def _said(self, told: Answer | Failure, batch: Sequence[Showing]) -> list[Said]:
        """The bill of a request is shared out: its calls to the first pair, its price evenly."""
        count = len(batch)
        preferences: Sequence[float | None] = [None] * count
        failure = None
        if isinstance(told, Failure):
            failure = f"{told.kind}: {told.message}"
        else:
            try:
                preferences = self.read(told, self.template.pairs)[:count]
            except Unparsable as error:
                failure = f"unparsable: {error}: {beginning(told)}"
        return [
            Said(
                None if told_1 is None else 3 - told_1 if showing.is_swapped else told_1,
                failure,
                told.price_usd / count,
                told.calls if i == 0 else 0,
            )
            for i, (showing, told_1) in enumerate(zip(batch, preferences, strict=True))
        ]

    def _verdict(self, said: Sequence[Said] | None) -> Verdict:
        """The mean over the orders; a failure in one of them is a failure."""
        if said is None:
            return Verdict(1.5, self.name)
        told = [one.preference for one in said if one.preference is not None]
        failed = next((one.failure for one in said if one.failure is not None), None)
        return Verdict(
            None if failed else sum(told) / len(told),
            self.name,
            failure=failed,
            price_usd=sum(one.price_usd for one in said),
            calls=sum(one.calls for one in said),
            contradicted=not failed and min(told) < 1.5 < max(told),
        )


def reader(reading: Reading) -> Read:
    """The parser of a judge's answers."""
    match reading.by:
        case "label":
            return one_pair(label)
        case "choice":
            return one_pair(choice)
        case "logprobs":
            return one_pair(logprobs)
        case "alpaca_eval":
            from alpacafarm.judges.alpaca_eval import parsed

            return parsed(reading)


def one_pair(read: Callable[[Answer], float]) -> Read:
    """For templates that ask about one pair."""
    return lambda answer, pairs: [read(answer)]
