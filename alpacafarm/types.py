"""Rows: what travels between stages as JSON lines. Every row keeps its `id`; joins are by id, not by text."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Example:
    """An instruction with the answer that demonstrates it (SFT) or is the reference (evaluation)."""

    id: str
    instruction: str
    input: str = ""
    output: str = ""
    dataset: str = ""  # where the instruction comes from, carried through to the outputs


@dataclass(frozen=True)
class Output:
    """One sampled answer. `sample` numbers the answers to one instruction from 0."""

    id: str
    instruction: str
    input: str
    output: str
    generator: str
    dataset: str = ""
    sample: int = 0
    ended: bool = True  # the policy emitted its end token within the limit
    tokens: int = 0  # response tokens, the end token included


@dataclass(frozen=True)
class Pair:
    """Two answers to one instruction, to be compared."""

    id: str
    instruction: str
    input: str
    output_1: str
    output_2: str


@dataclass(frozen=True)
class Preference(Pair):
    """A judged pair: 1 or 2 names the better output, 1.5 is a tie, between them a judge's probability."""

    preference: float = 1.5
    annotator: str = ""

    @property
    def is_tie(self) -> bool:
        return self.preference == 1.5

    @property
    def is_second_better(self) -> bool:
        return self.preference > 1.5


@dataclass(frozen=True)
class Unjudged(Pair):
    """A pair that got no verdict, and why: first the kind of the failure, up to a colon."""

    failure: str = ""


@dataclass(frozen=True)
class Thumb(Example):
    """One answer with a thumb up or down."""

    desirable: bool = True


@dataclass(frozen=True)
class ScoredPair:
    """A judged pair as a reward model sees it: raw scores, and response tokens as they were scored."""

    id: str
    preference: float
    score_1: float
    score_2: float
    tokens_1: int
    tokens_2: int


@dataclass(frozen=True)
class Verdict:
    """What a judge said of one pair. `preference` is None when it failed, and `failure` then says how.

    A failure begins with its kind, up to a colon. `contradicted`: asked in both orders, the judge preferred
    each output once.
    """

    preference: float | None
    annotator: str
    failure: str | None = None
    price_usd: float = 0.0
    calls: int = 0
    contradicted: bool = False
