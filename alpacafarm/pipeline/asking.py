"""Asking models from a stage that may have several processes: rank 0 asks for all of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from alpacafarm.errors import AlpacaFarmError
from alpacafarm.ports import Asker, Dist
from alpacafarm.request import Answer, Failure, Request


class RankZeroAsker:
    """All ranks call `ask` equally often. What it costs is told to the rank whose request was asked first."""

    def __init__(self, asker: Asker, dist: Dist) -> None:
        self.asker, self.dist = asker, dist

    def ask(self, requests: Iterable[Request]) -> Iterator[tuple[int, Answer | Failure]]:
        if self.dist.world == 1:
            yield from self.asker.ask(requests)
            return
        shares = self.dist.gather(list(requests))
        starts = [sum(map(len, shares[:rank])) for rank in range(self.dist.world)]
        told = self.dist.broadcast(self._asked([r for share in shares for r in share]))
        if isinstance(told, AlpacaFarmError):
            raise told
        start, count = starts[self.dist.rank], len(shares[self.dist.rank])
        yield from ((place - start, one) for place, one in told if start <= place < start + count)

    def _asked(self, requests: list[Request]) -> list[tuple[int, Answer | Failure]] | AlpacaFarmError | None:
        """Of all ranks, on rank 0; an error is told to the others, which would wait for it in vain."""
        if self.dist.rank != 0:
            return None
        try:
            return list(self.asker.ask(requests))
        except AlpacaFarmError as error:
            return error
