"""Log-probabilities and entropies of tokens, without holding the logits of a whole batch."""

# Shapes: N tokens (rows and positions flattened), C tokens of a chunk, H hidden size, V vocabulary,
# B rows, T positions.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from alpacafarm.ops.kl import divergence
from alpacafarm.ops.masked import zero_padding


@dataclass(frozen=True)
class TokenStats:
    logprob_N: Tensor
    entropy_N: Tensor | None  # nats
    kl_N: Tensor | None = None  # nats


def token_logprobs(logits_NV: Tensor, target_N: Tensor, *, temperature: float) -> Tensor:
    """log p(target) in nats, float32 at least.

    Every target must be a token id, on padding as well (any id will do; mask the result).
    The temperature is the one the tokens were sampled with.
    """
    return _pick(_log_softmax(logits_NV, temperature), target_N)


def entropy(logits_NV: Tensor, *, temperature: float) -> Tensor:
    """Entropy of each next-token distribution in nats. Logits of -inf are tokens that cannot occur."""
    return _entropy(_log_softmax(logits_NV, temperature))


def token_stats(
    hidden_NH: Tensor,
    head: Callable[[Tensor], Tensor],
    target_N: Tensor,
    *,
    temperature: float,
    chunk: int,
    with_entropy: bool,
) -> TokenStats:
    """Log-probability, and entropy if asked for, of each target under `head(hidden)`; see `in_chunks`.

    Both carry gradients. Leave out positions that do not count before the call: the head is what costs.
    """

    def stats(hidden_CH: Tensor, target_C: Tensor) -> tuple[Tensor, ...]:
        logprob_CV = _log_softmax(head(hidden_CH), temperature)
        logprob_C = _pick(logprob_CV, target_C)
        return (logprob_C, _entropy(logprob_CV)) if with_entropy else (logprob_C,)

    logprob_N, *rest = in_chunks(stats, hidden_NH, target_N, chunk=chunk)
    return TokenStats(logprob_N, rest[0] if with_entropy else None)


def token_stats_beside(
    hidden_NH: Tensor,
    head: Callable[[Tensor], Tensor],
    reference_NH: Tensor,
    reference_head: Callable[[Tensor], Tensor],
    target_N: Tensor,
    *,
    temperature: float,
    chunk: int,
) -> TokenStats:
    """`token_stats` with entropies and with the exact KL of the two next-token distributions."""

    def stats(hidden_CH: Tensor, reference_CH: Tensor, target_C: Tensor) -> tuple[Tensor, ...]:
        logprob_CV = _log_softmax(head(hidden_CH), temperature)
        kl_C = divergence(logprob_CV, _log_softmax(reference_head(reference_CH), temperature))
        return _pick(logprob_CV, target_C), _entropy(logprob_CV), kl_C

    return TokenStats(*in_chunks(stats, hidden_NH, reference_NH, target_N, chunk=chunk))


def in_chunks(function: Callable[..., tuple[Tensor, ...]], *inputs: Tensor, chunk: int) -> tuple[Tensor, ...]:
    """`function` over slices of at most `chunk` along the first axis, its results concatenated.

    Under autograd each slice is recomputed in the backward pass, so that what is large inside the function
    (C x V logits) lives for one slice at a time. One slice is called directly. Where parameters are sharded
    and the function gathers them (ZeRO-3), all ranks need equally many slices, or they wait for each other.
    """
    assert chunk > 0, chunk
    if inputs[0].size(0) <= chunk:
        return function(*inputs)
    pieces = []
    for part in zip(*(torch.split(x, chunk) for x in inputs), strict=True):
        if torch.is_grad_enabled():
            pieces.append(checkpoint(function, *part, use_reentrant=False))
        else:
            pieces.append(function(*part))
    return tuple(torch.cat(column) for column in zip(*pieces, strict=True))


def sequence_sum(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Sum of each row over the mask: of log-probabilities, log p(response | prompt)."""
    return zero_padding(x_BT, mask_BT).sum(1)


def _log_softmax(logits_NV: Tensor, temperature: float) -> Tensor:
    dtype = torch.promote_types(logits_NV.dtype, torch.float32)
    return F.log_softmax(logits_NV.to(dtype) / temperature, dim=-1)


def _pick(logprob_NV: Tensor, target_N: Tensor) -> Tensor:
    return logprob_NV.gather(-1, target_N.unsqueeze(-1)).squeeze(-1)


def _entropy(logprob_NV: Tensor) -> Tensor:
    finite_NV = logprob_NV.clamp(min=torch.finfo(logprob_NV.dtype).min)  # 0 * log 0 is 0
    return -(logprob_NV.exp() * finite_NV).sum(-1)
