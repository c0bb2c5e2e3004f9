"""`judge` of feedback, evaluation and methods, and of `method.pick`: who compares two answers."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator

from alpacafarm.spec.base import Problem, Strict, refuse

OURS = ("model", "messages", "prompt", "stream", "n")  # parameters of requests that the judge decides
LIMITS = ("max_tokens", "max_completion_tokens", "best_of")
MOST_LABELS = 10_000  # of a pair
MOST_TOKENS = 10**7  # of an answer; no model writes as many


class WorldJudge(Strict):
    """The embedded world's annotators: noisy, biased views of its true preference."""

    kind: Literal["world"]
    pool: Literal["sim", "human", "eval"]
    pool_seed: int = Field(ge=0)  # who the annotators are; the run's seed only says which of them reads what


class RewardJudge(Strict):
    """The run's reward model as judge: the higher score is preferred, or its probability when `soft`."""

    kind: Literal["reward"]
    soft: bool


class RecordedJudge(Strict):
    """Verdicts read back from a file of judged pairs, found by their texts in either order."""

    kind: Literal["recorded"]
    path: str


class ApiJudge(Strict):
    """A model behind an API that is shown both answers and names the better one.

    `answer`: the bare `label`; `json` or `tool`, which endpoints can enforce; `logprobs`, the probability of
    either label as first token, which makes the verdict a probability. `both_orders` asks twice, with either
    answer first, and averages; otherwise a coin that belongs to the pair decides which comes first.
    """

    kind: Literal["api"]
    model: str = Field(min_length=1)
    prompt: str = Field(min_length=1)  # one of alpacafarm/judges/prompts by name, or a file
    answer: Literal["label", "json", "tool", "logprobs"]
    temperature: float | None = Field(ge=0)  # null: not sent, for models that refuse one
    max_tokens: int | None = Field(ge=1, le=MOST_TOKENS)
    seed: int | None = Field(ge=0)  # of the coin, and sent along; null: not sent
    both_orders: bool
    extra: dict[str, Any] | None  # further parameters of the request, such as {reasoning_effort: low}

    @model_validator(mode="after")
    def extra_adds(self) -> Self:
        problems = [
            Problem(f"extra.{name}", value, text)
            for name, value in (self.extra or {}).items()
            if (text := no_parameter(name, value))
        ]
        if problems:
            refuse(*problems)
        return self


def no_parameter(name: str, value: Any) -> str | None:
    """What is wrong with a further parameter of a request. A budget must be able to count on limits."""
    if name in OURS:
        return f"is no parameter to add; leave .extra.{name} out"
    is_count = isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_TOKENS
    if name in LIMITS and value is not None and not is_count:
        return f"must be a whole number from 1 to {MOST_TOKENS:,}; set .extra.{name}=16, for example"
    try:
        json.dumps(value, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        return f"cannot be sent as JSON ({error}); set .extra.{name} to texts, numbers, lists of them or keys"
    return None


class AlpacaEvalJudge(Strict):
    """One of alpaca-eval's annotator configs: its prompt, its parameters and its parser, asked by us.

    `model` replaces one that is no longer served, or that no OpenAI-compatible endpoint has. Some prompts
    have places for several pairs, whose verdicts then depend on each other, and which are asked about anew
    when one of them changes: with `one_per_prompt` the other places get a filler, for more calls.
    """

    kind: Literal["alpaca_eval"]
    name: str = Field(min_length=1)  # a folder of alpaca-eval's evaluators_configs, or FOLDER/ANNOTATOR
    model: str | None
    seed: int = Field(ge=0)  # of the coin that decides which answer is shown first
    both_orders: bool
    one_per_prompt: bool


class Reading(Strict):
    """How an answer is read: a label, or by a parser of alpaca-eval's (`parser`, with its arguments)."""

    by: Literal["label", "choice", "logprobs", "alpaca_eval"]
    parser: str | None = None
    arguments: dict[str, Any] = Field(default_factory=dict)


class AskedJudge(Strict):
    """What the judges above come to in a plan: all that decides their verdicts, so that keys cover it.

    No user writes it: what they write is validated with a context (`alpacafarm.spec.run`), and refused.
    """

    kind: Literal["asked"]
    name: str
    model: str
    template: str
    chat: bool
    parameters: dict[str, Any]
    reading: Reading
    seed: int | None
    both_orders: bool
    pairs_per_prompt: int  # at most as many as the template has places for

    @model_validator(mode="before")
    @classmethod
    def comes_from_a_plan(cls, raw: object, info: ValidationInfo) -> object:
        if info.context is not None:
            text = "is what a plan makes of kind=api or kind=alpaca_eval; set .kind=api and its keys"
            refuse(Problem("kind", "asked", text))
        return raw


class LocalJudge(Strict):
    """A causal language model of this machine, read by the probabilities of the two labels after the prompt.

    Nothing is sampled: the verdict is a probability. `both_orders` averages over both orders of the answers;
    otherwise a coin that belongs to the pair decides which comes first.
    """

    kind: Literal["local"]
    path: str = Field(min_length=1)  # a Hugging Face folder, an artifact folder or a hub id
    revision: str | None
    prompt: str = Field(min_length=1)  # one of alpacafarm/judges/prompts by name, or a file
    both_orders: bool


class NoiseSpec(Strict):
    """An annotator's faults on top of its judge's verdicts; 0 is none. Formulas: `alpacafarm.stats.habits`.

    Abstentions and ties are drawn first and cost no judgement.
    """

    flip: float = Field(ge=0, le=1)  # probability that the verdict is reversed
    position: float  # nats towards the output that is shown first, which a fair coin decides
    length: float  # nats per factor e of length in characters: at 1, twice as long is twice as likely
    style: float  # nats towards an output with a list
    tie: float = Field(ge=0, le=1)  # probability of a tie
    abstain: float = Field(ge=0, le=1)  # probability of no verdict, a failure "abstained"
    drift: (
        float  # added to `flip`, linearly from the first of the pairs judged together (0) to the last (all)
    )

    @model_validator(mode="after")
    def drift_stays_a_probability(self) -> Self:
        if not 0 <= self.flip + self.drift <= 1:
            text = (
                f"with .flip={self.flip:g} the last pair would be flipped with probability "
                f"{self.flip + self.drift:g}; set .drift between {-self.flip:g} and {1 - self.flip:g}"
            )
            refuse(Problem("drift", self.drift, text))
        return self


Single = WorldJudge | RewardJudge | RecordedJudge | ApiJudge | AlpacaEvalJudge | AskedJudge | LocalJudge


class MemberSpec(Strict):
    """An annotator of a pool: drawn in proportion to its weight, it says what its judge does, with noise."""

    weight: float = Field(gt=0, le=10**9)
    judge: Annotated[Single, Field(discriminator="kind")]
    noise: NoiseSpec | None


class PoolJudge(Strict):
    """Annotators by name. One of them is drawn for each pair, the same whichever output comes first.

    `models` are names that the members' models may refer to (`${....models.strong}`), so that a whole pool
    changes with a few keys. They change nothing by themselves.
    """

    kind: Literal["pool"]
    models: dict[str, str] = Field(default_factory=dict, exclude=True)
    members: dict[str, MemberSpec] = Field(min_length=1)


class PeopleJudge(Strict):
    """People, on the page of `alpacafarm.label`. The run waits for them with exit code 3.

    `labels_per_pair` people see each pair, and `count` says what their labels amount to: the `majority`'s, or
    a tie where there is none; or their `mean`. The run goes on when `pairs` pairs are judged, null: all.
    """

    kind: Literal["people"]
    pairs: int | None = Field(ge=1, le=10**9)
    labels_per_pair: int = Field(ge=1, le=MOST_LABELS)
    count: Literal["majority", "mean"]


JudgeSpec = Annotated[Single | PoolJudge, Field(discriminator="kind")]


def parts(judge: JudgeSpec) -> Iterator[tuple[str, Single]]:
    """The judges that are asked, each with its key below the judge's: of a pool those of its members."""
    if not isinstance(judge, PoolJudge):
        yield "", judge
        return
    for name, member in judge.members.items():
        yield f"members.{name}.judge.", member.judge


def runs_a_model(judge: JudgeSpec) -> bool:
    """Whether weights are loaded to judge: such a stage needs the devices."""
    return any(isinstance(part, RewardJudge | LocalJudge) for _, part in parts(judge))


def is_waited_for(judge: JudgeSpec) -> bool:
    """Whether asking means to wait for others' machines, and takes no device here."""
    kinds = ApiJudge | AlpacaEvalJudge | AskedJudge
    return any(isinstance(part, kinds) for _, part in parts(judge)) and not runs_a_model(judge)
