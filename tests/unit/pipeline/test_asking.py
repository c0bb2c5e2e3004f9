"""Ranks ask together: rank 0 asks, each gets what is its own."""

import threading
from collections.abc import Iterable, Iterator
from typing import Any

import pytest

from alpacafarm.errors import JudgeError
from alpacafarm.pipeline.asking import RankZeroAsker
from alpacafarm.request import Answer, Request


class Ranks:
    """What the ranks' `gather` and `broadcast` share, in threads."""

    def __init__(self, world: int) -> None:
        self.world = world
        self.barrier = threading.Barrier(world, timeout=60)
        self.values: list[Any] = [None] * world


class Rank:
    def __init__(self, ranks: Ranks, rank: int) -> None:
        self.ranks, self.rank, self.world = ranks, rank, ranks.world

    def gather(self, value: Any) -> list[Any]:
        self.ranks.values[self.rank] = value
        self.ranks.barrier.wait()
        values = list(self.ranks.values)
        self.ranks.barrier.wait()
        return values

    def broadcast(self, value: Any) -> Any:
        return self.gather(value)[0]


class Echo:
    """Answers backwards in order; the calls it was asked for are counted once."""

    def __init__(self, error: JudgeError | None = None) -> None:
        self.asked, self.error = 0, error

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[int, Answer]]:
        if self.error:
            raise self.error
        requests = list(requests)
        self.asked += len(requests)
        yield from reversed([(i, Answer(str(r.prompt))) for i, r in enumerate(requests)])


def asked_by(shares: list[list[str]], askers: list[Echo]) -> list[Any]:
    """Of each rank: the answers to its requests by position, or the error it got."""
    ranks, found = Ranks(len(shares)), [None] * len(shares)

    def run(rank: int) -> None:
        asker = RankZeroAsker(askers[rank], Rank(ranks, rank))  # type: ignore[arg-type]
        try:
            found[rank] = {i: a.text for i, a in asker.ask(Request("m", prompt=p) for p in shares[rank])}
        except JudgeError as error:
            found[rank] = error

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(len(shares))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.mark.parametrize("shares", [[["a", "b"], ["c"]], [[], ["a"], ["b", "c", "d"]], [["x"]]])
def test_every_rank_gets_the_answers_to_its_own_requests(shares):
    askers = [Echo() for _ in shares]
    assert asked_by(shares, askers) == [dict(enumerate(share)) for share in shares]
    assert [asker.asked for asker in askers] == [sum(map(len, shares)), *[0] * (len(shares) - 1)]


def test_an_error_reaches_every_rank():
    found = asked_by([["a"], ["b"]], [Echo(JudgeError("no key")), Echo()])
    assert [str(error) for error in found] == ["no key", "no key"]
