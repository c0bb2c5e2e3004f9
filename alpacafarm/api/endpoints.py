"""Endpoints that share the load of a model, each with its slots, its rate limits and its health."""

from __future__ import annotations

import asyncio
import math
import os
import re
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from alpacafarm.api.http import Connection
from alpacafarm.api.prices import serving_endpoints
from alpacafarm.errors import JudgeError
from alpacafarm.spec.api import EndpointSpec

MINUTE_S = 60.0
NO_KEY = "none"  # what a server that asks for no key is sent
OPENAI = re.compile(r"https?://api\.openai\.com(?:[:/]|$)")
STRIKES = 5  # faults in a row after which an endpoint is left to the others for a while
REST_S = 10.0
AHEAD = 0.3  # of the concurrency: requests in the ledger that go as soon as one in flight is answered
RECENT = 16  # replies of which half must be 429 before an endpoint is left alone as a whole


class Window:
    """At most `limit` of something in any 60 seconds, whatever the start. None: no limit."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.taken: deque[tuple[float, int]] = deque()
        self.total = 0

    def wait_s(self, amount: int, now: float) -> float:
        """Seconds until `amount` fits. What is more than the limit itself goes alone."""
        if self.limit is None:
            return 0.0
        self._forget(now)
        total, fits_at = self.total, now
        for at, taken in self.taken:
            if total + amount <= self.limit:
                break
            total, fits_at = total - taken, at + MINUTE_S
        return fits_at - now

    def take(self, amount: int, now: float) -> None:
        if self.limit is not None:
            self.taken.append((now, amount))
            self.total += amount

    def give_back(self, amount: int, at: float) -> None:
        """What was taken `at` some time was not used."""
        if (at, amount) in self.taken:
            self.taken.remove((at, amount))
            self.total -= amount

    def _forget(self, now: float) -> None:
        while self.taken and self.taken[0][0] + MINUTE_S <= now:
            self.total -= self.taken.popleft()[1]


class Endpoint:
    """One server as this process sees it."""

    def __init__(self, name: str, spec: EndpointSpec) -> None:
        self.name, self.spec = name, spec
        self.used = 0
        self.room = spec.concurrency + int(AHEAD * spec.concurrency)
        self.turns = asyncio.Semaphore(spec.concurrency)
        self.requests = Window(spec.requests_per_minute)
        self.tokens = Window(spec.tokens_per_minute)
        self.resting_until = 0.0  # what the server asked for, or we found out
        self.strikes, self.out_until = 0, 0.0
        self.limited: deque[bool] = deque(maxlen=RECENT)
        self.replied_at: float | None = None  # the loop's time of its latest reply of any kind
        self.answered = False  # a request, at least once
        self.hopeless: dict[str, tuple[float, str]] = {}  # by model: since when, and why
        self._connection: Connection | None = None

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            self._connection = Connection(self.spec.base_url, self.api_key(), self.spec.timeout_s)
        return self._connection

    def api_key(self) -> str:
        """The key, or a placeholder where none is needed. JudgeError where it is and is missing."""
        name = self.spec.api_key_env
        key = os.environ.get(name, "").strip() if name else ""
        if not key and OPENAI.match(self.spec.base_url):
            raise JudgeError(self.trouble("it needs a key, and there is none"))
        if not (key.isascii() and key.isprintable()):  # which no header of HTTP takes
            raise JudgeError(self.trouble("its key has other characters than printable ASCII"))
        return key or NO_KEY

    def unserved(self, what: str) -> str:
        """It says that there is no such model, or no such path."""
        return (
            f"endpoint {self.name} ({self.spec.base_url}): {what}; name a model that it serves, or set "
            f"api.endpoints.{self.name}.base_url right, which ends in /v1 on most servers; what was answered "
            "is kept"
        )

    def trouble(self, what: str) -> str:
        name = self.spec.api_key_env
        way = (
            f"set the environment variable {name} to its key"
            if name
            else "name its key's variable in api_key_env"
        )
        return (
            f"endpoint {self.name} ({self.spec.base_url}): {what}; {way}, or "
            f"api.endpoints.{self.name}.base_url to a server that can be reached; what was answered is kept"
        )

    def wait_s(self, tokens: int, now: float) -> float:
        """Seconds until a request of so many tokens may go, its slots aside."""
        limits = max(self.requests.wait_s(1, now), self.tokens.wait_s(tokens, now))
        return max(limits, self.resting_until - now)

    def take(self, tokens: int, now: float) -> None:
        self.used += 1
        self.requests.take(1, now)
        self.tokens.take(tokens, now)

    def check_hope(self, model: str, since: float) -> None:
        """JudgeError where a request of the model was refused for good after the time `since`."""
        at, why = self.hopeless.get(model, (-math.inf, ""))
        if at >= since:
            raise JudgeError(why)

    # Health

    def replied(self, now: float, *, fault: bool, limited: bool) -> None:
        """Notes a reply; `limited` is status 429, which is no fault of the server's."""
        self.replied_at = now
        self.limited.append(limited)
        self._count(now, fault)

    def silent(self, now: float) -> None:
        """Notes that there was no reply."""
        self._count(now, fault=True)

    def _count(self, now: float, fault: bool) -> None:
        self.strikes = self.strikes + 1 if fault else 0
        self.out_until = now + REST_S if self.strikes >= STRIKES else 0.0

    def asked_to_wait(self, seconds: float, now: float) -> None:
        """A few 429 concern the requests that met them; many concern the endpoint."""
        if sum(self.limited) >= RECENT // 2:
            self.resting_until = max(self.resting_until, now + seconds)

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()


@dataclass(frozen=True)
class Slot:
    """The right to send one request to `endpoint`."""

    endpoint: Endpoint
    tokens: int
    at: float


@dataclass
class Line:
    """Requests of one model that wait for a slot, first come, first served."""

    endpoints: Sequence[Endpoint]
    waiting: deque[tuple[asyncio.Future[Slot], int]] = field(default_factory=deque)


class Pool:
    """All endpoints. Lives in one event loop."""

    def __init__(self, specs: Mapping[str, EndpointSpec]) -> None:
        self.specs = specs
        self.endpoints = {name: Endpoint(name, spec) for name, spec in specs.items()}
        self._lines: dict[str, Line] = {}
        self._timer: asyncio.TimerHandle | None = None

    def serving(self, model: str) -> Sequence[Endpoint]:
        """JudgeError where nobody serves the model."""
        if model not in self._lines:
            names = serving_endpoints(self.specs, model)
            if not names:
                raise JudgeError(
                    f"model {model}: no endpoint serves it; add it to the models of one of api.endpoints"
                )
            self._lines[model] = Line([self.endpoints[name] for name in names])
        return self._lines[model].endpoints

    async def slot(self, model: str, tokens: int) -> Slot:
        """Waits for a free slot within the rate limits; `release` gives it back."""
        self.serving(model)
        free: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._lines[model].waiting.append((free, tokens))
        self._serve()
        try:
            return await free
        except asyncio.CancelledError:
            if free.done() and not free.cancelled():
                self.release(free.result(), unused=True)
            raise

    def release(self, slot: Slot, *, unused: bool = False) -> None:
        """`unused`: no request was sent, so no limit is nearer."""
        slot.endpoint.used -= 1
        if unused:
            slot.endpoint.requests.give_back(1, slot.at)
            slot.endpoint.tokens.give_back(slot.tokens, slot.at)
        self._serve()

    def _serve(self) -> None:
        """Gives slots to those who wait, as far as there are any."""
        now = asyncio.get_running_loop().time()
        later = [wait for line in self._lines.values() if (wait := self._serve_line(line, now)) is not None]
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(min(later), self._serve) if later else None

    def _serve_line(self, line: Line, now: float) -> float | None:
        """Seconds after which to look again; None where only a released slot can help."""
        while line.waiting:
            free, tokens = line.waiting[0]
            if free.done():
                line.waiting.popleft()
                continue
            endpoint, wait = choice(line.endpoints, tokens, now)
            if endpoint is None or wait > 0:
                return wait if endpoint else None
            line.waiting.popleft()
            endpoint.take(tokens, now)
            free.set_result(Slot(endpoint, tokens, now))
        return None

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for endpoint in self.endpoints.values():
            await endpoint.close()


def choice(endpoints: Sequence[Endpoint], tokens: int, now: float) -> tuple[Endpoint | None, float]:
    """The endpoint that can be asked first, and in how many seconds; of several the least busy.

    None where all slots are taken. Those that do not answer are left out as long as there are others.
    """
    well = [e for e in endpoints if e.out_until <= now] or endpoints
    free = [e for e in well if e.used < e.room]
    waits = [(max(0.0, e.wait_s(tokens, now)), e.used / e.spec.concurrency, i) for i, e in enumerate(free)]
    if not waits:
        return None, 0.0
    wait, _, best = min(waits)
    return free[best], wait
