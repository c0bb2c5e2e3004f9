"""Token ids to padded batches.

A sequence is a prompt and a response. Sequences are right-padded; everything that belongs to response tokens
has the response as its time axis, so that losses never see prompts.

Shapes: B rows, L positions of the longest sequence, T positions of the longest response.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class Tokens:
    """One row: exact token ids. A response that ended carries its end token."""

    prompt: tuple[int, ...]
    response: tuple[int, ...]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.response)


def scored(row: Tokens, eos_id: int, *, with_eos: bool) -> Tokens:
    """The row as a reward model reads it: always with its end token, or never."""
    text = row.response[:-1] if row.response[-1:] == (eos_id,) else row.response
    return Tokens(row.prompt, (*text, eos_id) if with_eos else text)


@dataclass(frozen=True)
class Batch:
    """A micro-batch. `weight` is what its loss sum will be divided by, known before the forward pass."""

    weight: float

    @property
    def rows(self) -> int:
        """Samples, for throughput."""
        raise NotImplementedError

    @property
    def real_tokens(self) -> int:
        """Tokens that are not padding."""
        raise NotImplementedError

    @property
    def computed_tokens(self) -> int:
        """Positions that the model computes, padding included."""
        raise NotImplementedError

    def to(self, device: torch.device) -> Self:
        """The same batch with every tensor (and nested batch) on `device`."""
        moved = {
            f.name: getattr(self, f.name).to(device)
            for f in fields(self)
            if isinstance(getattr(self, f.name), (Tensor, Batch))
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class SequenceBatch(Batch):
    """Prompts and responses. Weight: response tokens."""

    input_ids_BL: Tensor
    attention_BL: Tensor  # 1 on real tokens
    start_B: Tensor  # position of the first response token, at least 1
    response_BT: Tensor
    mask_BT: Tensor  # true on response tokens

    @property
    def rows(self) -> int:
        return self.input_ids_BL.size(0)

    @property
    def real_tokens(self) -> int:
        return int(self.attention_BL.sum())

    @property
    def computed_tokens(self) -> int:
        return self.input_ids_BL.numel()


def collate(rows: Sequence[Tokens], pad_id: int) -> SequenceBatch:
    """Right-padded sequences. A prompt holds at least one token, which predicts the first response token."""
    length = max(row.length for row in rows)
    time = max(1, max(len(row.response) for row in rows))
    ids = torch.full((len(rows), length), pad_id, dtype=torch.long)
    attention = torch.zeros((len(rows), length), dtype=torch.long)
    response = torch.full((len(rows), time), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), time), dtype=torch.bool)
    for b, row in enumerate(rows):
        assert row.prompt, "a prompt needs at least one token"
        ids[b, : row.length] = torch.tensor(row.prompt + row.response)
        attention[b, : row.length] = 1
        response[b, : len(row.response)] = torch.tensor(row.response, dtype=torch.long)
        mask[b, : len(row.response)] = True
    return SequenceBatch(
        weight=float(mask.sum()),
        input_ids_BL=ids,
        attention_BL=attention,
        start_B=torch.tensor([len(row.prompt) for row in rows]),
        response_BT=response,
        mask_BT=mask,
    )


@dataclass(frozen=True)
class OverSequences(Batch):
    """A batch that adds something to sequences and counts as they do."""

    sequences: SequenceBatch

    @property
    def rows(self) -> int:
        return self.sequences.rows

    @property
    def real_tokens(self) -> int:
        return self.sequences.real_tokens

    @property
    def computed_tokens(self) -> int:
        return self.sequences.computed_tokens


@dataclass(frozen=True)
class PairBatch(OverSequences):
    """Pairs of responses. Weight: pairs.

    Rows 0..B-1 of `sequences` hold output 1 of each pair, rows B..2B-1 output 2.
    """

    probability_2_B: Tensor  # that output 2 is the better one: 0, 1, or between (0.5 is a tie)

    @property
    def rows(self) -> int:
        return self.probability_2_B.size(0)


def collate_pairs(
    first: Sequence[Tokens], second: Sequence[Tokens], probability_2: Sequence[float], pad_id: int
) -> PairBatch:
    """One forward pass for both sides of each pair."""
    assert len(first) == len(second) == len(probability_2)
    return PairBatch(
        weight=float(len(first)),
        sequences=collate([*first, *second], pad_id),
        probability_2_B=torch.tensor(probability_2, dtype=torch.float32),
    )
