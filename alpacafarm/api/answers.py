"""From an endpoint's reply to an answer. Replies are kept whole, so that reading them can be done again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alpacafarm.request import Answer, FailureKind, Request

MOST_TOKENS = 10**7  # of a reply: what tells of more is not believed


class UnusableError(Exception):
    """A reply of status 200 that is no answer. Tokens are what it says it used, None where it does not."""

    def __init__(self, kind: FailureKind, message: str, tokens: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.kind, self.tokens = kind, tokens


def path_of(request: Request) -> str:
    return "/chat/completions" if request.prompt is None else "/completions"


def body_of(request: Request) -> dict[str, Any]:
    """What is sent. `sample` is ours: it only tells answers to equal questions apart."""
    asked: dict[str, Any] = {"model": request.model}
    if request.prompt is None:
        asked["messages"] = [dict(message) for message in request.messages]
    else:
        asked["prompt"] = request.prompt
    return {**asked, **request.parameters}


def answer_of(text: str) -> Answer:
    """The first choice of a reply. UnusableError where there is none, or nothing in it."""
    try:
        told = json.loads(text)
        choice = told["choices"][0]
        said, top = read_choice(choice)
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError):
        raise UnusableError("malformed", f"no answer of the OpenAI API: {text[:200]!r}") from None
    tokens = tokens_of(told.get("usage"))
    reason = plain(str(choice.get("finish_reason") or ""))
    if not said or not said.strip():
        raise UnusableError("empty", f"an answer without content (finish_reason={reason or 'none'})", tokens)
    tokens_in, tokens_out = tokens or (0, 0)
    return Answer(plain(said), top, reason, tokens_in, tokens_out)


def plain(text: str) -> str:
    """U+FFFD for half surrogates, which JSON can escape, but neither files nor the database take."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def tokens_of(usage: Any) -> tuple[int, int] | None:
    """Tokens read and written, None where the endpoint tells neither or nothing that can be."""
    if not isinstance(usage, Mapping):
        return None
    read, written = usage.get("prompt_tokens"), usage.get("completion_tokens") or 0
    told = [n for n in (read, written) if isinstance(n, int | float) and 0 <= n <= MOST_TOKENS]
    return (int(told[0]), int(told[1])) if len(told) == 2 else None


def read_choice(choice: Mapping[str, Any]) -> tuple[str | None, Sequence[Mapping[str, float]] | None]:
    """Text and top log-probabilities of a choice, of chat or of plain completions."""
    logprobs = choice.get("logprobs") or {}
    if "text" in choice:
        top = logprobs.get("top_logprobs")
        if not isinstance(choice["text"], str | None):
            raise TypeError("text")
        return choice["text"], None if not top else [floats(of_token or {}) for of_token in top]
    content = logprobs.get("content")
    top = [floats({t["token"]: t["logprob"] for t in said["top_logprobs"]}) for said in content or ()]
    return text_of(choice["message"]), top if content else None


def floats(logprobs: Mapping[str, Any]) -> dict[str, float]:
    return {str(token): float(value) for token, value in logprobs.items()}


def text_of(message: Mapping[str, Any]) -> str | None:
    """The arguments of the function that is called, or else the content."""
    if message.get("tool_calls"):
        return str(message["tool_calls"][0]["function"]["arguments"])
    if message.get("function_call"):
        return str(message["function_call"]["arguments"])
    content = message.get("content")
    if isinstance(content, list):  # parts, as some servers send them
        return "".join(str(part.get("text") or "") for part in content)
    return None if content is None else str(content)
