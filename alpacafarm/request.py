"""One question to a model behind an API, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from alpacafarm.stage import content_key

FailureKind = Literal["refused", "exhausted", "empty", "malformed"]


@dataclass(frozen=True)
class Request:
    """All that changes the answer and nothing else: where it is sent to and how often is no part of it.

    `parameters` go into the body of the request as they are (`temperature`, `max_tokens`, `logprobs`,
    `tools`, `response_format`, `seed`, ...). `sample` tells apart several answers to one question. A request
    with `prompt` goes to the completions of models that take no chat; exactly one of both is given.
    """

    model: str
    messages: Sequence[Mapping[str, Any]] = ()
    prompt: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sample: int = 0

    @cached_property
    def key(self) -> str:
        """The same for the same question, in any process and on any machine."""
        told = [self.model, [dict(m) for m in self.messages], self.prompt, dict(self.parameters), self.sample]
        return content_key(told)


@dataclass(frozen=True)
class Answer:
    """What the model said. `calls` and `price_usd` are of this asking: zero where it was known already.

    `text` is the message's content, or the arguments of the function it called. `top_logprobs` gives for each
    token of the answer the most probable ones with their natural logarithms, where the request asked for it.
    """

    text: str
    top_logprobs: Sequence[Mapping[str, float]] | None = None
    finish_reason: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    price_usd: float = 0.0
    calls: int = 0


@dataclass(frozen=True)
class Failure:
    """No answer: never kept, so the next run asks again.

    `refused`: the endpoint says that the request is wrong (status 400 and its like); `exhausted`: rate
    limits, faults and time-outs outlasted all tries; `empty`: answers without content; `malformed`: no answer
    of the protocol.
    """

    kind: FailureKind
    message: str
    price_usd: float = 0.0
    calls: int = 0


@dataclass(frozen=True)
class Price:
    """Of one model, in USD for a million tokens."""

    per_million_in: float
    per_million_out: float

    def usd(self, tokens_in: float, tokens_out: float) -> float:
        return (tokens_in * self.per_million_in + tokens_out * self.per_million_out) / 1e6

    @property
    def is_free(self) -> bool:
        return self.per_million_in == 0 and self.per_million_out == 0


FREE = Price(0.0, 0.0)
