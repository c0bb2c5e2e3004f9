"""A reward model over many rows."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alpacafarm.rollout.order import by_length
from alpacafarm.text.collate import SequenceBatch, Tokens, collate


@torch.no_grad()
def score(
    reward: Callable[[SequenceBatch], Tensor],
    rows: Sequence[Tokens],
    *,
    pad_id: int,
    batch_size: int,
    device: torch.device,
) -> list[float]:
    """`reward(batch) -> score_B` of every row, in the order of the rows.

    Where the weights are sharded, every rank must bring equally many batches.
    """
    scores = [0.0] * len(rows)
    for indices in by_length([row.length for row in rows], batch_size):
        score_B = reward(collate([rows[i] for i in indices], pad_id).to(device))
        assert score_B.shape == (len(indices),), score_B.shape
        for i, value in zip(indices, score_B.float().tolist(), strict=True):
            scores[i] = value
    return scores
