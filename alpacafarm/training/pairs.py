"""Judged pairs as tokens and as optimiser steps: what every method that trains on pairs starts from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from alpacafarm.errors import SpecError
from alpacafarm.ports import Context
from alpacafarm.spec.method import OptimSpec
from alpacafarm.text.collate import PairBatch, Tokens, collate_pairs
from alpacafarm.text.tokenise import encode_rows, fit
from alpacafarm.training.batches import Steps, step_rows
from alpacafarm.types import Example, Preference

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

B = TypeVar("B", bound=PairBatch)


@dataclass(frozen=True)
class TokenPairs:
    """Pairs whose prompt fits; place i of each list belongs to one pair. Responses carry their end token."""

    first: list[Tokens]
    second: list[Tokens]
    rows: list[Preference]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def lengths(self) -> list[int]:
        """Tokens of the longer side, prompt included."""
        return [max(a.length, b.length) for a, b in zip(self.first, self.second, strict=True)]


def tokenised(
    pairs: Sequence[Preference],
    tokenizer: PreTrainedTokenizerBase,
    ctx: Context,
    *,
    purpose: str,
    room: int = 0,
) -> TokenPairs:
    """Both sides of every pair. Records how many there are, and what was dropped and cut.

    Prompts that have no place for `room` further tokens are dropped. SpecError where no pair is left:
    `purpose` says for what.
    """
    limit = ctx.model.max_prompt_tokens - room
    one, two = (
        fit(
            encode_rows(
                tokenizer,
                ctx.model.prompt,
                [Example(p.id, p.instruction, p.input, getattr(p, side)) for p in pairs],
            ),
            max_prompt_tokens=limit,
            max_response_tokens=ctx.model.max_response_tokens,
        )
        for side in ("output_1", "output_2")
    )
    assert one.kept == two.kept  # what is dropped depends on the prompt alone
    ctx.record(
        dropped_prompts=one.too_long_prompts,
        truncated_responses=one.truncated_responses + two.truncated_responses,
        pairs=len(one.kept),
    )
    if not one.kept:
        raise SpecError(
            f"none of {len(pairs)} judged pairs is left to train {purpose} on: every prompt has more "
            f"than {limit} tokens, as model.max_prompt_tokens={ctx.model.max_prompt_tokens} asks; "
            "raise it, or give shorter ones"
        )
    return TokenPairs(one.rows, two.rows, [pairs[i] for i in one.kept])


@dataclass(frozen=True)
class ReferencedPairs(PairBatch):
    """Pairs with what the reference policy says of them, where a loss asks for it."""

    reference_2B: Tensor | None  # log p(response) in nats: output 1 of each pair, then output 2


def with_reference(
    logprob_1: Sequence[float], logprob_2: Sequence[float]
) -> Callable[[PairBatch, Sequence[int]], ReferencedPairs]:
    """For `pair_steps`: adds the reference's log-probabilities, which are listed by place."""

    def attach(batch: PairBatch, places: Sequence[int]) -> ReferencedPairs:
        found = [side[i] for side in (logprob_1, logprob_2) for i in places]
        return _referenced(batch, torch.tensor(found, dtype=torch.float32))

    return attach


def without_reference(batch: PairBatch, places: Sequence[int]) -> ReferencedPairs:
    """For `pair_steps`, where the loss has no reference."""
    return _referenced(batch, None)


def _referenced(batch: PairBatch, reference_2B: Tensor | None) -> ReferencedPairs:
    told = {f.name: getattr(batch, f.name) for f in fields(batch)}
    return ReferencedPairs(**told, reference_2B=reference_2B)


def as_it_is(batch: PairBatch, places: Sequence[int]) -> PairBatch:
    return batch


def pair_steps(
    pairs: TokenPairs,
    used: Sequence[int],
    *,
    epochs: int,
    optim: OptimSpec,
    pad_id: int,
    ctx: Context,
    attach: Callable[[PairBatch, Sequence[int]], B],
    seed: int | None = None,
) -> Steps[B]:
    """Optimiser steps over the pairs at the places `used`.

    `attach` adds what the loss needs beside tokens and labels (`as_it_is`: nothing), given places in `pairs`.
    `seed` is that of their order, else the stage's.
    """

    def collate(indices: Sequence[int]) -> B:
        places = [used[i] for i in indices]
        batch = collate_pairs(
            [pairs.first[i] for i in places],
            [pairs.second[i] for i in places],
            [pairs.rows[i].preference - 1 for i in places],
            pad_id,
        )
        return attach(batch, places)

    lengths = pairs.lengths
    return Steps(
        rows_of=step_rows(
            len(used), batch_size=optim.batch_size, epochs=epochs, seed=ctx.seed if seed is None else seed
        ),
        lengths=[lengths[i] for i in used],
        collate=collate,
        micro_batch=ctx.micro_batch,
        rank=ctx.dist.rank,
        world=ctx.dist.world,
    )
