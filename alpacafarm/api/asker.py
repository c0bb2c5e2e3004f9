"""Satisfies `ports.Asker`: the caller's thread gives requests and takes outcomes, a loop elsewhere asks."""

from __future__ import annotations

import asyncio
import math
import queue
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from alpacafarm.api.engine import Engine, OverBudgetError, read_again
from alpacafarm.api.store import Purpose, Spent
from alpacafarm.api.tokens import expected_tokens_in, most_tokens_out
from alpacafarm.errors import BudgetError
from alpacafarm.request import Answer, Failure, Request

CHUNK = 32  # requests that are looked up together
GRACE_S = 10.0  # for what is in flight when the asking is broken off: it is paid for

Outcome = tuple[int, Answer | Failure]
Opened = Callable[[], tuple[Engine, asyncio.AbstractEventLoop]]


@dataclass
class Missing:
    """Requests that were not sent because of the budget."""

    spent: Spent
    keys: set[str] = field(default_factory=set)
    usd: float = 0.0  # what they would cost if their answers are as long as allowed


class ApiAsker:
    """Asks for one purpose."""

    def __init__(self, opened: Opened, purpose: Purpose) -> None:
        self.opened, self.purpose = opened, purpose
        self.askings: set[Asking] = set()

    def ask(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        asking = Asking(*self.opened(), self.purpose)
        self.askings.add(asking)
        try:
            yield from asking.outcomes(requests)
        finally:
            asking.stop()
            self.askings.discard(asking)

    def stop(self) -> None:
        for asking in tuple(self.askings):
            asking.stop()


class Asking:
    """One call of `ask`: what of it is under way."""

    def __init__(self, engine: Engine, loop: asyncio.AbstractEventLoop, purpose: Purpose) -> None:
        self.engine, self.loop, self.purpose = engine, loop, purpose
        self.gathered: list[Outcome | BaseException | None] = []  # in this round of the loop
        self.ready: queue.SimpleQueue[list[Outcome | BaseException | None]] = queue.SimpleQueue()
        self.tasks: set[asyncio.Task[Any]] = set()
        self.failed: dict[str, Failure] = {}  # not asked a second time
        self.missing: Missing | None = None
        self.is_broken_off = False
        slots = sum(spec.concurrency for spec in engine.pool.specs.values())
        self.ahead = slots + 4 * CHUNK

    # In the caller's thread

    def outcomes(self, requests: Iterable[Request]) -> Iterator[Outcome]:
        """BudgetError after the last outcome where some requests were not sent."""
        numbered = enumerate(requests)
        under_way, more = 0, True
        while True:
            while more and under_way <= self.ahead - CHUNK:
                chunk = list(islice(numbered, CHUNK))
                more = len(chunk) == CHUNK
                under_way += len(chunk)
                if chunk:
                    self.loop.call_soon_threadsafe(self._begin, chunk)
            if not under_way:
                break
            for outcome in self.ready.get():
                under_way -= 1
                if isinstance(outcome, BaseException):
                    raise outcome
                if outcome is not None:
                    yield outcome
        if self.missing is not None:
            raise over_budget(self.purpose, self.missing)

    def stop(self) -> None:
        """Nothing more is sent; what is in flight is waited for, a second interrupt aside."""
        if self.is_broken_off and not self.tasks:
            return
        done = asyncio.run_coroutine_threadsafe(self._stop(GRACE_S), self.loop)
        try:
            done.result()
        except KeyboardInterrupt:
            done.cancel()
            asyncio.run_coroutine_threadsafe(self._stop(0.0), self.loop).result()
            raise

    # In the loop's thread

    def _put(self, outcome: Outcome | BaseException | None) -> None:
        if not self.gathered:
            self.loop.call_soon(self._hand_over)
        self.gathered.append(outcome)

    def _hand_over(self) -> None:
        self.ready.put(self.gathered)
        self.gathered = []

    def _begin(self, chunk: Sequence[tuple[int, Request]]) -> None:
        if not self.is_broken_off:
            self._spawn(self._look_up(chunk))

    def _break_off(self) -> None:
        """Nothing more is sent."""
        self.is_broken_off = True
        for task in self.tasks - self.engine.sending:
            task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break_off()
            self._put(error)

    async def _look_up(self, chunk: Sequence[tuple[int, Request]]) -> None:
        keys = [request.key for _, request in chunk]
        known = await self.engine.writer.do(lambda store: store.known(keys))
        for position, request in chunk:
            if request.key in known:
                self._put((position, read_again(known[request.key])))
            else:
                self._spawn(self._one(position, request))

    async def _one(self, position: int, request: Request) -> None:
        if self.missing is None:
            try:
                self._put((position, await self._found(request)))
                return
            except OverBudgetError as error:
                self.missing = self.missing or Missing(error.spent)
        self._miss(self.missing, request)
        self._put(None)

    async def _found(self, request: Request) -> Answer | Failure:
        """Asks, unless an equal request is being asked, or was in vain."""
        flights = self.engine.flights
        while request.key in flights:
            found = await asyncio.shield(flights[request.key])
            if found is not None:
                return replace(found, calls=0, price_usd=0.0)
        if request.key in self.failed:
            return self.failed[request.key]
        flights[request.key] = self.loop.create_future()
        found = None
        try:
            found = await self.engine.ask(request, self.purpose)
        finally:
            flights.pop(request.key).set_result(found)
        if isinstance(found, Failure):
            self.failed[request.key] = replace(found, calls=0, price_usd=0.0)
        return found

    def _miss(self, missing: Missing, request: Request) -> None:
        if request.key not in missing.keys:
            missing.keys.add(request.key)
            price = self.engine.prices.of(request.model)
            missing.usd += price.usd(expected_tokens_in(request), most_tokens_out(request))

    async def _stop(self, grace_s: float) -> None:
        deadline = self.loop.time() + grace_s
        self._break_off()
        while self.tasks & self.engine.sending and (left := deadline - self.loop.time()) > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.engine.settled.wait(), left)
            self._break_off()  # what would be tried again
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


def over_budget(purpose: Purpose, missing: Missing) -> BudgetError:
    """Names the cap, what is spent and missing, and how to go on."""
    budget, spent, count = purpose.budget, missing.spent, len(missing.keys)
    if budget.max_calls is not None and spent.calls >= budget.max_calls:
        key, value, more = "budget.max_calls", f"{budget.max_calls}", f"{spent.calls + count}"
    else:
        cents = math.ceil((spent.usd + missing.usd) * 100)
        key, value, more = "budget.max_usd", f"{budget.max_usd:g}", f"{cents / 100:.2f}"
    return BudgetError(
        f"{key}={value}: {spent.calls:,} calls and {spent.usd:.4f} USD are spent on the stages of this run, "
        f"and the next request could pass it; {count:,} requests are not answered, for about "
        f"{missing.usd:.4f} USD. What was answered is kept: the same command with {key}={more} or more goes "
        "on and pays nothing twice"
    )
