"""How many tokens a request has, without its tokeniser: those of most models cannot be had offline."""

from __future__ import annotations

from alpacafarm.request import Request
from alpacafarm.stage import canonical_json

CHARACTERS_PER_TOKEN = 4  # of English text; OpenAI's own rule of thumb for its tokenisers
PER_MESSAGE = 8  # the chat format around each message; OpenAI's own adds 3 or 4, and 3 before the answer
UNLIMITED = 4096  # what an answer without max_tokens is taken to be at most
OFFERED = ("tools", "functions", "response_format")  # parameters that the model reads


def estimated(characters: float) -> int:
    """Tokens to expect of a text."""
    return round(characters / CHARACTERS_PER_TOKEN)


def most_tokens_in(request: Request) -> int:
    """No tokeniser makes more of it: each token of a byte-level vocabulary stands for at least one byte."""
    said = len(canonical_json([dict(m) for m in request.messages])) if request.prompt is None else 0
    read = [
        request.prompt or "",
        *(canonical_json(request.parameters[k]) for k in OFFERED if k in request.parameters),
    ]
    written = sum(len(text.encode("utf-8", "surrogatepass")) for text in read)
    return said + written + PER_MESSAGE * (len(request.messages) + 1)


def expected_tokens_in(request: Request) -> int:
    return estimated(most_tokens_in(request))


def answer_limit(request: Request) -> int | None:
    """The most tokens that the answers may have together; None where the request sets no limit."""
    told = request.parameters
    limit = told.get("max_completion_tokens") or told.get("max_tokens")
    return None if limit is None else int(limit) * max(int(told.get("n") or 1), int(told.get("best_of") or 1))


def most_tokens_out(request: Request) -> int:
    limit = answer_limit(request)
    return UNLIMITED if limit is None else limit
