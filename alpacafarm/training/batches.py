"""Which rows an optimiser step sees, and how it is cut into micro-batches, which never changes the result."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

from alpacafarm.stats.seeds import stable_seed
from alpacafarm.text.collate import Batch

B = TypeVar("B", bound=Batch)
B_co = TypeVar("B_co", bound=Batch, covariant=True)


def step_rows(rows: int, *, batch_size: int, epochs: int, seed: int) -> list[list[int]]:
    """Row indices of every optimiser step: a fresh permutation each epoch, cut into batches.

    An epoch's last batch is smaller when `batch_size` does not divide the rows. No row is dropped.
    """
    steps: list[list[int]] = []
    for epoch in range(epochs):
        order = list(range(rows))
        random.Random(stable_seed(seed, "epoch", epoch)).shuffle(order)
        steps.extend(order[i : i + batch_size] for i in range(0, rows, batch_size))
    return steps


def deal(
    indices: Sequence[int], lengths: Sequence[int], *, micro_batch: int, rank: int, world: int
) -> list[list[int]]:
    """This rank's micro-batches of one step: rows of similar length together, ranks share alike.

    Rows are sorted by length and cut into micro-batches, which the ranks take in turn, cut finer where
    some rank would otherwise have none. With fewer rows than ranks some ranks get nothing.
    """
    order = sorted(indices, key=lambda i: (lengths[i], i))
    size = max(1, min(micro_batch, len(order) // world))
    cut = [order[i : i + size] for i in range(0, len(order), size)]
    return cut[rank::world]


class StepSequence(Protocol[B_co]):
    """The optimiser steps of a training run: this rank's micro-batches of each, built when asked for."""

    def __len__(self) -> int: ...
    def __getitem__(self, step: int) -> Sequence[B_co]: ...


@dataclass(frozen=True)
class Steps(Generic[B]):
    """Steps over rows that are there from the beginning."""

    rows_of: Sequence[Sequence[int]]
    lengths: Sequence[int]
    collate: Callable[[Sequence[int]], B]
    micro_batch: int
    rank: int
    world: int

    def __len__(self) -> int:
        return len(self.rows_of)

    def __getitem__(self, step: int) -> list[B]:
        cut = deal(
            self.rows_of[step], self.lengths, micro_batch=self.micro_batch, rank=self.rank, world=self.world
        )
        if not cut:  # a row of another rank at weight 0, to keep step with it
            return [replace(self.collate(self.rows_of[step][:1]), weight=0.0)]
        return [self.collate(rows) for rows in cut]
