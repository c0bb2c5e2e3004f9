"""Drawing the next token of each row from its own stream of random numbers.

Token t of a row is the inverse of the row's cumulative distribution at one uniform number u(seed, t). The
numbers are SplitMix64 (Steele, Lea and Flood 2014), which is counter-based: no generator has a state, so what
a row draws does not depend on which rows stand beside it, in what order, or when they end. (A batch's shape
moves logits by rounding errors, about 1e-7; a row differs only where u falls that close to the border of two
tokens.)
"""

# Shapes: B rows, T steps, V vocabulary, K tokens kept by top-k.

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alpacafarm.spec.model import Sampling

_GAMMA = np.uint64(
    0x9E3779B97F4A7C15
)  # SplitMix64's increment, odd and close to 2^64 divided by the golden ratio
_WORD = 2**64 - 1


def uniforms(seeds: Sequence[int], steps: int) -> Tensor:
    """u_BT in [0, 1), 24 random bits each. Seeds count modulo 2^64."""
    seed_B = np.array([seed & _WORD for seed in seeds], dtype=np.uint64)
    counter_T = np.arange(1, steps + 1, dtype=np.uint64) * _GAMMA
    # Seeds are mixed first: seeds that differ by a multiple of the increment would otherwise share a stream.
    bits_BT = _mix(_mix(seed_B)[:, None] + counter_T[None, :])
    return torch.from_numpy((bits_BT >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24))


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function, a bijection of 64-bit words."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def draw(logits_BV: Tensor, u_B: Tensor, sampling: Sampling) -> Tensor:
    """One token per row. A token of probability zero is never drawn; V stands for a row whose logits are not
    numbers."""
    weight_BV = weights(logits_BV, sampling)
    cumulative_BV = weight_BV.cumsum(-1)
    total_B1 = cumulative_BV[:, -1:]
    # Strictly below the total, or rounding could fall off the end; `right` steps over tokens of weight zero.
    point_B1 = torch.minimum(u_B[:, None] * total_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
    return torch.searchsorted(cumulative_BV, point_B1, right=True).squeeze(1)


def weights(logits_BV: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities up to a factor per row, float32: temperature, then top-k, then top-p as usual.

    Top-k keeps exactly k tokens. Top-p keeps the smallest set of likeliest tokens whose mass (of what top-k
    left, at the temperature) reaches p. The greatest logit is subtracted before the division, so any
    temperature is safe.
    """
    scaled_BV = logits_BV.float()
    scaled_BV = (scaled_BV - scaled_BV.amax(-1, keepdim=True)).div_(sampling.temperature)
    weight_BV = scaled_BV.exp_()
    if not sampling.truncates:
        return weight_BV
    size = weight_BV.size(-1)
    top_BK, index_BK = weight_BV.topk(min(sampling.top_k or size, size), dim=-1)
    if sampling.top_p < 1:
        before_BK = top_BK.cumsum(-1) - top_BK
        top_BK = top_BK.masked_fill(before_BK >= sampling.top_p * top_BK.sum(-1, keepdim=True), 0.0)
    return torch.zeros_like(weight_BV).scatter_(-1, index_BK, top_BK)
