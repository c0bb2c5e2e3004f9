"""Asks one request until there is an answer or a typed failure. All of it runs in one event loop."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from typing import Any

from alpacafarm.api import fate
from alpacafarm.api.answers import UnusableError, answer_of, body_of, path_of
from alpacafarm.api.endpoints import Endpoint, Pool
from alpacafarm.api.http import Connection, CutError, NotReachedError, Reply
from alpacafarm.api.prices import Prices
from alpacafarm.api.store import NANO, AnswerStore, Busy, Ended, Known, Over, Purpose, Sent, Spent
from alpacafarm.api.tokens import answer_limit, estimated, most_tokens_in, most_tokens_out
from alpacafarm.api.writer import Writer
from alpacafarm.errors import JudgeError
from alpacafarm.request import Answer, Failure, FailureKind, Price, Request

UNUSABLE_TRIES = 3  # of replies that are paid for and hold no answer: most would not get better
UNREACHED_TRIES = 3  # before anything was ever heard of an endpoint
BUSY_LOOK_S = 0.1  # between looks whether another process has the answer


class OverBudgetError(Exception):
    """The request was not sent: it could pass the budget, of which `spent` is gone."""

    def __init__(self, spent: Spent) -> None:
        super().__init__()
        self.spent = spent


@dataclass
class Course:
    """How one request has fared so far."""

    request: Request
    purpose: Purpose
    started: float  # the loop's time
    body: str  # what is sent, JSON
    most_tokens: tuple[int, int]  # in and out
    tries: int = 0
    unusable: int = 0
    reached: bool = False
    calls: int = 0
    price: int = 0  # billionths of a USD


@dataclass(frozen=True)
class Ending:
    """What an attempt came to: its line of the ledger, and what follows. No `result`: try again."""

    state: Ended
    price: int
    message: str = ""
    calls: int = 1
    tokens: tuple[int, int] = (0, 0)
    result: Answer | Failure | JudgeError | None = None
    kind: FailureKind = "exhausted"  # of the failure, where this was the last try
    wait_s: float | None = None  # the server's wish
    response: str | None = None


@dataclass
class Engine:
    """What all requests of an asker share."""

    pool: Pool
    writer: Writer
    prices: Prices
    open: int = 0  # attempts that are not settled
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    sending: set[asyncio.Task[Any]] = field(default_factory=set)  # whose attempt has gone out
    flights: dict[str, asyncio.Future[Answer | Failure | None]] = field(default_factory=dict)  # by request

    async def ask(self, request: Request, purpose: Purpose) -> Answer | Failure:
        """OverBudgetError where it was not sent for that reason; JudgeError where nothing can be asked."""
        now = asyncio.get_running_loop().time()
        most = (most_tokens_in(request), most_tokens_out(request))
        course = Course(request, purpose, now, json.dumps(body_of(request)), most)
        try:
            while True:
                found = await self.attempt(course)
                if isinstance(found, Answer | Failure):
                    return replace(found, calls=course.calls, price_usd=course.price / NANO)
                await asyncio.sleep(found)
        finally:
            self.writer.post(lambda store: store.free(request.key))

    async def attempt(self, course: Course) -> Answer | Failure | float:
        """One try, from the slot to the settled ledger; or seconds until the next one."""
        request = course.request
        slot = await self.pool.slot(request.model, estimated(course.most_tokens[0]) + course.most_tokens[1])
        endpoint, started = slot.endpoint, None
        try:
            connection, reserved = endpoint.connection, self.worst_price(course, endpoint)
            started = await self.start(course, endpoint, reserved)
            if isinstance(started, Sent):
                ending = await self.exchange(course, endpoint, connection, started.attempt, reserved)
        finally:
            self.pool.release(slot, unused=not isinstance(started, Sent))
        match started:
            case Known():
                return read_again(started.response)
            case Busy():
                return await self.await_other(request.key)
            case Over():
                return await self.await_room(started)
        await self.settle(course, endpoint, started.attempt, ending)
        return self.consequence(course, endpoint, ending)

    async def start(self, course: Course, endpoint: Endpoint, reserved: int) -> Known | Sent | Busy | Over:
        """Enters the attempt, where there is to be one."""
        request, purpose = course.request, course.purpose
        try:
            return await self.writer.do(
                lambda store: store.start(
                    request.key, purpose, model=request.model, endpoint=endpoint.name, price=reserved
                )
            )
        except asyncio.CancelledError:
            self.writer.post(lambda store: store.withdraw(request.key))
            raise

    def worst_price(self, course: Course, endpoint: Endpoint) -> int:
        """What one attempt costs at most, in billionths of a USD."""
        request, cap = course.request, course.purpose.budget.max_usd
        price = self.prices.at(request.model, endpoint.spec)
        if not price.is_free and cap is not None and answer_limit(request) is None:
            raise JudgeError(
                f"budget.max_usd={cap:g}: a request to {request.model} sets no max_tokens, so "
                "nobody knows what its answer costs at most; set max_tokens, or budget.max_usd=null"
            )
        return nano(price, *course.most_tokens)

    async def await_other(self, key: str) -> float:
        """Waits while another process asks the same."""
        while await self.writer.do(lambda store: store.is_asked_elsewhere(key)):
            await asyncio.sleep(BUSY_LOOK_S)
        return 0.0

    async def await_room(self, over: Over) -> float:
        """Waits for what was in flight, here or elsewhere. OverBudgetError where nothing was."""
        if over.is_final:
            raise OverBudgetError(over.spent)
        if not self.open:
            return BUSY_LOOK_S
        await self.settled.wait()
        return 0.0

    async def exchange(
        self, course: Course, endpoint: Endpoint, connection: Connection, attempt: int, reserved: int
    ) -> Ending:
        """Sends the request and reads what comes."""
        task = asyncio.current_task()
        assert task is not None
        course.tries += 1
        self.open += 1
        try:
            async with endpoint.turns:
                endpoint.check_hope(course.request.model, course.started)
                self.sending.add(task)
                reply = await connection.post(path_of(course.request), course.body)
            course.reached = True
            return self.replied(course, endpoint, reply, reserved)
        except NotReachedError as error:
            return self.not_reached(course, endpoint, str(error))
        except CutError as error:
            course.reached = True
            endpoint.silent(asyncio.get_running_loop().time())
            return Ending("unknown", reserved, str(error))
        except BaseException:
            if task in self.sending:
                self.writer.post(
                    lambda store: store.end(attempt, "unknown", price=reserved, message="interrupted")
                )
            else:
                self.writer.post(lambda store: store.withdraw(course.request.key))
            self.sent(task)
            raise

    def replied(self, course: Course, endpoint: Endpoint, reply: Reply, reserved: int) -> Ending:
        now = asyncio.get_running_loop().time()
        endpoint.replied(now, fault=reply.status >= 500, limited=reply.status == 429)
        if reply.status != 200:
            return self.not_answered(course, endpoint, reply)
        price = self.prices.at(course.request.model, endpoint.spec)
        try:
            answer = answer_of(reply.text)
        except UnusableError as error:
            course.unusable += 1
            used = nano(price, *error.tokens) if error.tokens else reserved
            return Ending("failed", used, str(error), tokens=error.tokens or (0, 0), kind=error.kind)
        tokens = (answer.tokens_in, answer.tokens_out)
        used = nano(price, *tokens) if any(tokens) else reserved
        endpoint.answered = True
        return Ending("answered", used, tokens=tokens, result=answer, response=reply.text)

    def not_answered(self, course: Course, endpoint: Endpoint, reply: Reply) -> Ending:
        """A status that says that nothing was done, so nothing is to pay."""
        found = fate.fate_of(reply, course.request.model, answered=endpoint.answered)
        if found.what == "hopeless":
            told = (endpoint.unserved if reply.status == 404 else endpoint.trouble)(found.message)
            endpoint.hopeless[course.request.model] = asyncio.get_running_loop().time(), told
            return Ending("failed", 0, found.message, result=JudgeError(told))
        if found.what == "refused":
            return Ending("failed", 0, found.message, result=Failure("refused", found.message))
        if (found.wait_s or 0.0) > fate.PATIENCE_S:
            message = f"{found.message}; Retry-After is {found.wait_s:.0f} s"
            return Ending("failed", 0, message, result=Failure("exhausted", message))
        if reply.status == 429:
            now = asyncio.get_running_loop().time()
            endpoint.asked_to_wait(found.wait_s or fate.back_off(course.tries), now)
        return Ending("failed", 0, found.message, wait_s=found.wait_s)

    def not_reached(self, course: Course, endpoint: Endpoint, message: str) -> Ending:
        """Nothing was sent. It is no use going on where no endpoint of the model was heard of since."""
        endpoint.silent(asyncio.get_running_loop().time())
        serving = self.pool.serving(course.request.model)
        heard = [e.replied_at for e in serving if e.replied_at is not None]
        last = endpoint.spec.tries if heard else min(UNREACHED_TRIES, endpoint.spec.tries)
        silent = not course.reached and max(heard, default=-1.0) < course.started
        lost = silent and course.tries >= last and not self.others(course, endpoint)
        error = JudgeError(endpoint.trouble(f"cannot be reached ({message})")) if lost else None
        return Ending("failed", 0, f"not reached: {message}", calls=0, result=error)

    def others(self, course: Course, endpoint: Endpoint) -> list[Endpoint]:
        """Those that can take over at once."""
        return [e for e in self.pool.serving(course.request.model) if e is not endpoint and not e.strikes]

    async def settle(self, course: Course, endpoint: Endpoint, attempt: int, ending: Ending) -> None:
        """Writes the ledger's line, and the answer before anybody uses it."""
        course.calls += ending.calls
        course.price += ending.price
        task = asyncio.current_task()
        assert task is not None
        try:
            await self.writer.do(lambda store: record(store, course, endpoint.name, attempt, ending))
        finally:
            self.sent(task)

    def sent(self, task: asyncio.Task[Any]) -> None:
        """Nothing of this task is in flight any more."""
        self.open -= 1
        self.sending.discard(task)
        self.settled.set()
        self.settled = asyncio.Event()

    def consequence(self, course: Course, endpoint: Endpoint, ending: Ending) -> Answer | Failure | float:
        """The end of the request, or seconds until its next try."""
        if isinstance(ending.result, JudgeError):
            raise ending.result
        if ending.result is not None:
            return ending.result
        others = self.others(course, endpoint)
        if not ending.calls and others:  # this one was no try
            course.tries -= 1
            return 0.0
        if course.unusable >= UNUSABLE_TRIES or course.tries >= endpoint.spec.tries:
            tries = f"{course.tries} tries, the last: {ending.message}"
            return Failure(ending.kind, f"endpoint {endpoint.name}: {tries}")
        if others and ending.wait_s is None:
            return 0.0
        if ending.wait_s is not None:
            return max(ending.wait_s, fate.back_off(1))  # some chance, so that not all come back together
        return fate.back_off(course.tries)


def record(store: AnswerStore, course: Course, endpoint: str, attempt: int, ending: Ending) -> None:
    store.end(
        attempt,
        ending.state,
        price=ending.price,
        calls=ending.calls,
        tokens=ending.tokens,
        message=ending.message,
    )
    if ending.response is not None:
        asked = f'{{"sample": {course.request.sample}, "body": {course.body}}}'
        store.keep(attempt, course.request.key, asked, ending.response, endpoint)


def read_again(response: str) -> Answer | Failure:
    """A kept response as it is read today."""
    try:
        return answer_of(response)
    except UnusableError as error:
        return Failure(error.kind, str(error))


def nano(price: Price, tokens_in: int, tokens_out: int) -> int:
    """A price in billionths of a USD."""
    return round(price.usd(tokens_in, tokens_out) * NANO)
