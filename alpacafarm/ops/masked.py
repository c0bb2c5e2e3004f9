"""Sums, means, whitening and scaling over the real positions of a padded batch.

Masks are true (or 1) on the positions that count. What stands on the others never matters, be it inf or nan.
"""

# Shapes: B rows, T positions. `x` and `mask` without a suffix may have any equal shape.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

WHITEN_EPS = 1e-8  # alpaca_farm, torch_ops.whiten


def zero_padding(x: Tensor, mask: Tensor) -> Tensor:
    """`x` with zeros outside the mask; a product would let inf and nan through."""
    return x.masked_fill(~mask.bool(), 0)


def masked_sum(x: Tensor, mask: Tensor) -> Tensor:
    return zero_padding(x, mask).sum()


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over this mask only, 0 if it is empty. For logging; a loss divides a sum by the global count."""
    return masked_sum(x, mask) / mask.sum().clamp(min=1)


def last_token(mask_BT: Tensor) -> Tensor:
    """True on the last counted position of each row and nowhere else; a row without any has none."""
    left_BT = mask_BT.long().flip(1).cumsum(1).flip(1)  # counted positions from here to the end
    return mask_BT.bool() & (left_BT == 1)


@dataclass(frozen=True)
class Moments:
    """What mean and standard deviation need, in a form that adds up over shards.

    Scalars in float64: the variance is a difference of two large numbers.
    """

    count: Tensor
    total: Tensor
    square: Tensor  # sum of squares

    @property
    def mean(self) -> Tensor:
        return self.total / self.count.clamp(min=1)

    @property
    def std(self) -> Tensor:
        """Of the population (divided by n, not n - 1), as alpaca_farm's `whiten` takes it."""
        variance = self.square / self.count.clamp(min=1) - self.mean.square()
        return variance.clamp(min=0).sqrt()

    @property
    def rms(self) -> Tensor:
        """Root mean square."""
        return (self.square / self.count.clamp(min=1)).sqrt()

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.count + other.count, self.total + other.total, self.square + other.square)

    def combined(self, all_reduce: Callable[[Tensor], Tensor]) -> Moments:
        """Moments of all ranks together; `all_reduce` returns the sum of a tensor over the ranks."""
        return Moments(*all_reduce(torch.stack([self.count, self.total, self.square])).unbind())


def moments(x: Tensor, mask: Tensor) -> Moments:
    real = zero_padding(x.detach(), mask).double()
    return Moments(count=mask.double().sum(), total=real.sum(), square=real.square().sum())


def whiten(x_BT: Tensor, mask_BT: Tensor, moments: Moments) -> Tensor:
    """Mean zero and standard deviation one; zero on padding.

    Args:
        moments: of the population to scale by: this batch, the batches of all ranks, or with padding counted
            in (a mask of ones), which is what alpaca_farm does.
    """
    return zero_padding((x_BT - moments.mean) / (moments.std + WHITEN_EPS), mask_BT)


def scale(x_BT: Tensor, mask_BT: Tensor, moments: Moments) -> Tensor:
    """Root mean square one; zero on padding, and zeros stay zeros. Equal values are not blown up."""
    return zero_padding(x_BT / (moments.rms + WHITEN_EPS), mask_BT)
