"""Models behind an API that answer by rule: one function of the request, no network."""

import random
from collections.abc import Callable, Iterable, Iterator

from alpacafarm.request import Answer, Failure, Request
from alpacafarm.types import Pair

PAIR = Pair("a", "Say hello.", "", "Hello, good good day!", "A good day.")


class Scripted:
    """Answers in any order, as endpoints do; equal requests are answered once, as the store does."""

    def __init__(self, answer: Callable[[Request], Answer | Failure | str]) -> None:
        self.answer = answer
        self.asked: list[Request] = []

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        found = [(i, self._told(request)) for i, request in enumerate(requests)]
        random.Random(0).shuffle(found)
        yield from found

    def _told(self, request: Request) -> Answer | Failure:
        is_new = request.key not in {r.key for r in self.asked}
        self.asked.append(request)
        told = self.answer(request)
        cost = {"price_usd": 0.5, "calls": 1} if is_new else {}
        return Answer(told, **cost) if isinstance(told, str) else told


def swapped(pair: Pair) -> Pair:
    return Pair(pair.id, pair.instruction, pair.input, pair.output_2, pair.output_1)


def said(request: Request) -> str:
    return request.prompt or "\n".join(message["content"] for message in request.messages)
