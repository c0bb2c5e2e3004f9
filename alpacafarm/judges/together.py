"""Several judges that wait for answers from elsewhere, at the same time and without threads."""

from collections.abc import Generator, Sequence
from typing import Protocol, TypeVar, runtime_checkable

from alpacafarm.types import Pair, Verdict

T = TypeVar("T")
Comparing = Generator[None, None, list[Verdict]]


@runtime_checkable
class WaitingJudge(Protocol):
    """`comparing` is `Judge.compare` in steps: it yields when an answer has come, with others under way."""

    def comparing(self, pairs: Sequence[Pair]) -> Comparing: ...


def finished(work: Generator[None, None, T]) -> T:
    """What a generator returns in the end."""
    (found,) = in_turns([work])
    return found


def in_turns(works: Sequence[Generator[None, None, T]]) -> list[T]:
    """What generators return, in their order. Each goes a step in its turn, so that all are under way.

    Processes that call it alike start the generators in the same order. An error of one ends all.
    """
    found: dict[int, T] = {}
    waiting = dict(enumerate(works))
    try:
        while waiting:
            for i, work in tuple(waiting.items()):
                try:
                    next(work)
                except StopIteration as end:
                    found[i] = end.value
                    del waiting[i]
    finally:
        for work in works:
            work.close()
    return [found[i] for i in range(len(works))]
