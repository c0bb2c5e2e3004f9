"""What an endpoint's status means for a request: try again and when, give up, or ask nothing more at all."""

from __future__ import annotations

import json
import random
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Literal

from alpacafarm.api.answers import plain
from alpacafarm.api.http import Reply

AGAIN = {408, 409, 425, 429}  # and 5xx: the same request may do better later
FIRST_WAIT_S, LONGEST_WAIT_S = 0.5, 30.0  # of the exponential back-off; openai's own client waits 0.5 to 8 s
PATIENCE_S = 600.0  # a server that asks for more is taken to be out for now

What = Literal["again", "refused", "hopeless"]


@dataclass(frozen=True)
class Fate:
    """`hopeless`: no request of this model would do better. `wait_s` is the server's own Retry-After."""

    what: What
    message: str
    wait_s: float | None = None


def fate_of(reply: Reply, model: str, *, answered: bool) -> Fate:
    """Of a reply whose status is not 200. `answered`: the endpoint has answered something already."""
    message, code = told(reply.text)
    said = f"status {reply.status}: {message}"
    if reply.status == 401 or code == "insufficient_quota":
        return Fate("hopeless", said)
    if reply.status == 403 and not answered:  # later it is about this very text
        return Fate("hopeless", said)
    if reply.status == 404 and not answered and (code is None or model in message):  # wrong path, wrong model
        return Fate("hopeless", said)
    if reply.status in AGAIN or reply.status >= 500:
        return Fate("again", said, retry_after(reply.retry_after, time.time()))
    return Fate("refused", said)


def told(text: str) -> tuple[str, str | None]:
    """An error's message, and its code where it is one of the protocol (empty when it gives none)."""
    try:
        error = json.loads(text).get("error")
    except (ValueError, AttributeError, RecursionError):
        error = None
    if isinstance(error, dict):
        return plain(str(error.get("message") or text)[:500]), str(error.get("code") or "")
    if isinstance(error, str):
        return plain(error[:500]), ""
    return " ".join(text.split())[:200] or "no text", None


def retry_after(header: str | None, now: float) -> float | None:
    """Seconds from `now` (of the epoch), from a number or an HTTP date (RFC 9110, 10.2.3)."""
    if header is None:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(header).timestamp() - now)
    except (ValueError, TypeError):
        return None


def back_off(failed: int) -> float:
    """Seconds to wait after the `failed`-th failure in a row: doubling, half of it drawn at random.

    The draw keeps requests that failed together from coming back together; no result depends on it.
    """
    longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** (failed - 1))
    return longest * random.uniform(0.5, 1.0)
