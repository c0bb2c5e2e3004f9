"""The learning rate as a function of the step."""

import math
from typing import Literal


def learning_rate(
    step: int,
    total: int,
    *,
    peak: float,
    schedule: Literal["cosine", "linear", "constant"],
    warmup_fraction: float,
) -> float:
    """Linear warm-up to `peak`, then the schedule, as `transformers.get_cosine_schedule_with_warmup` has it.

    `step` counts from 0. The warm-up is evaluated at the end of the step, (step + 1) / warmup, so that the
    first update is not spent at a rate of zero; the step after the warm-up is the first of the decay, at
    `peak`. Cosine and linear would reach zero at step `total`, which is never taken.
    """
    assert 0 <= step < total, (step, total)
    warmup = math.ceil(warmup_fraction * total)  # as transformers.TrainingArguments.get_warmup_steps
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    match schedule:
        case "cosine":
            return peak * 0.5 * (1 + math.cos(math.pi * progress))
        case "linear":
            return peak * (1 - progress)
        case "constant":
            return peak
