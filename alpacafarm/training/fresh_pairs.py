"""Micro-batches of pairs that the policy has just sampled.

Shapes: B pairs, 2B their responses: the first of each, then the second of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alpacafarm.ops.logprobs import sequence_sum
from alpacafarm.text.collate import SequenceBatch
from alpacafarm.training.pairs import ReferencedPairs
from alpacafarm.training.rollouts import Rollouts


@dataclass(frozen=True)
class FreshPairs(ReferencedPairs):
    """Weight: pairs with a label. The others stay where they are, so that every rank has as many rows."""

    is_pair_B: Tensor  # 1 with a label, else 0


def fresh_pairs(
    sequences: Sequence[SequenceBatch],
    indices: Sequence[Sequence[int]],
    rollouts: Rollouts,
    probability_2: Sequence[float | None],
) -> list[FreshPairs]:
    """One minibatch on the same rows as `sequences`.

    Args:
        indices: of each micro-batch's rows: pair p has the rows 2p and 2p + 1.
        probability_2: of each pair, that its second response is the better one; None without a label.
    """
    batches = []
    for sequence, rows in zip(sequences, indices, strict=True):
        labels = [probability_2[row // 2] for row in rows[: len(rows) // 2]]
        is_pair_B = torch.tensor([float(label is not None) for label in labels])
        reference_BT = rollouts.reference_logprob_BT[torch.tensor(rows), : sequence.mask_BT.size(1)]
        batches.append(
            FreshPairs(
                weight=float(is_pair_B.sum()),
                sequences=sequence,
                probability_2_B=torch.tensor([0.5 if label is None else label for label in labels]),
                reference_2B=sequence_sum(reference_BT, sequence.mask_BT),
                is_pair_B=is_pair_B,
            )
        )
    return batches
