import math

import pytest
import torch
import transformers

from alpacafarm.engine.schedule import learning_rate

PEAK = 3e-4


def rates(total: int, schedule: str, warmup_fraction: float) -> list[float]:
    return [
        learning_rate(step, total, peak=PEAK, schedule=schedule, warmup_fraction=warmup_fraction)
        for step in range(total)
    ]


def transformers_rates(total: int, schedule: str, warmup: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    make = {
        "cosine": lambda: transformers.get_cosine_schedule_with_warmup(optimizer, warmup, total),
        "linear": lambda: transformers.get_linear_schedule_with_warmup(optimizer, warmup, total),
        "constant": lambda: transformers.get_constant_schedule_with_warmup(optimizer, warmup),
    }
    scheduler = make[schedule]()
    found = []
    for _ in range(total):
        found.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
@pytest.mark.parametrize("fraction", [0.0, 0.03, 0.3])
def test_decay_is_that_of_transformers(schedule, fraction):
    warmup = math.ceil(fraction * 50)
    ours, theirs = rates(50, schedule, fraction), transformers_rates(50, schedule, warmup)
    assert ours[warmup:] == pytest.approx(theirs[warmup:])


def test_warm_up_is_that_of_transformers_one_step_on():
    ours, theirs = rates(50, "cosine", 0.2), transformers_rates(50, "cosine", 10)
    assert ours[:10] == pytest.approx(theirs[1:11])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_no_step_is_taken_at_zero_and_none_above_the_peak(schedule):
    for total in range(1, 40):
        for fraction in (0.0, 0.03, 0.5, 0.99):
            found = rates(total, schedule, fraction)
            assert min(found) > 0
            assert max(found) <= PEAK


def test_halfway_down_the_cosine_is_half_the_peak():
    assert learning_rate(10, 20, peak=PEAK, schedule="cosine", warmup_fraction=0.0) == pytest.approx(PEAK / 2)


def test_linear_loses_the_same_at_each_step():
    assert rates(4, "linear", 0.0) == pytest.approx([PEAK, 0.75 * PEAK, 0.5 * PEAK, 0.25 * PEAK])
