"""What a policy says of given responses, token by token: log-probabilities, values, entropies."""

# Shapes: B rows, T positions of the longest response.

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from alpacafarm.rollout.order import by_length
from alpacafarm.text.collate import Tokens, collate


@torch.no_grad()
def per_token(
    forward: Callable[..., Any],
    rows: Sequence[Tokens],
    names: Sequence[str],
    *,
    pad_id: int,
    batch_size: int,
    device: torch.device,
    temperature: float,
) -> dict[str, Tensor]:
    """The fields `names` of `forward(batch, temperature=...)`, each a BT tensor over all rows, in the rows'
    order.

    T and the mask are those of `collate(rows, pad_id)`, and so is the device, the CPU. Zero on padding.
    Where the weights are sharded, every rank must bring equally many batches.
    """
    time = max(1, max((len(row.response) for row in rows), default=0))
    result = {name: torch.zeros(len(rows), time) for name in names}
    for indices in by_length([row.length for row in rows], batch_size):
        batch = collate([rows[i] for i in indices], pad_id).to(device)
        out = forward(batch, temperature=temperature)
        for name in names:
            value_BT = getattr(out, name).float().masked_fill(~batch.mask_BT, 0.0)
            result[name][indices, : value_BT.size(1)] = value_BT.cpu()
    return result


def logprobs(
    forward: Callable[..., Any],
    rows: Sequence[Tokens],
    *,
    pad_id: int,
    batch_size: int,
    device: torch.device,
    temperature: float,
) -> Tensor:
    """`logprob_BT` of `per_token`: log p(token) in nats, at the temperature the rows were sampled with."""
    found = per_token(
        forward,
        rows,
        ["logprob_BT"],
        pad_id=pad_id,
        batch_size=batch_size,
        device=device,
        temperature=temperature,
    )
    return found["logprob_BT"]
