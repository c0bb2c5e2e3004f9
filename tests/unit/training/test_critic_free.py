"""Advantages and losses of the critic-free methods against the papers' formulas, written out in float64."""

import math

import pytest
import torch
from torch import Tensor

from alpacafarm.engine.single import SingleProcess
from alpacafarm.text.collate import Tokens, collate
from alpacafarm.training.critic_free import (
    PolicyBatch,
    advantages,
    cut,
    policy_loss,
    token_shares,
)
from alpacafarm.training.rollouts import Rollouts

LENGTHS = [2, 5, 3, 1, 4, 4]  # two groups of three, or three of two
ESTIMATORS = ["reinforce", "rloo", "grpo", "dr_grpo", "reinforce_pp"]
WEIGHT = 0.3


def rollouts(lengths: list[int] = LENGTHS, width: int = 5, seed: int = 0) -> Rollouts:
    rows, generator = len(lengths), torch.Generator().manual_seed(seed)
    mask = torch.arange(width) < torch.tensor(lengths)[:, None]

    def drawn() -> Tensor:
        values = torch.zeros(rows, width, dtype=torch.float64)
        values[:, :5] = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
        return values * mask

    score = torch.randn(rows, generator=generator, dtype=torch.float64)
    return Rollouts(
        ended_B=torch.ones(rows, dtype=torch.bool),
        mask_BT=mask,
        logprob_BT=drawn(),
        reference_logprob_BT=drawn(),
        raw=score.tolist(),
        score_B=score,
    )


def found(given: Rollouts, estimator: str, group: int = 3, weight: float = WEIGHT) -> Tensor:
    return advantages(
        given, SingleProcess(), estimator=estimator, group=group, kl_weight=weight, kl="k1"
    ).advantage_BT


def written_out(given: Rollouts, estimator: str, group: int) -> list[list[float]]:
    """Each advantage from its formula, in plain Python."""
    lengths = given.mask_BT.sum(1).tolist()
    log_ratio = (given.logprob_BT - given.reference_logprob_BT).tolist()
    kl = [row[:n] for row, n in zip(log_ratio, lengths, strict=True)]
    score = given.score_B.tolist()
    if estimator == "reinforce_pp":
        to_go = [[r - WEIGHT * sum(k[t:]) for t in range(len(k))] for r, k in zip(score, kl, strict=True)]
        flat = [x for row in to_go for x in row]
        mean = sum(flat) / len(flat)
        std = math.sqrt(sum((x - mean) ** 2 for x in flat) / len(flat))
        return [[(x - mean) / std for x in row] for row in to_go]
    total = [r - WEIGHT * sum(k) for r, k in zip(score, kl, strict=True)]
    result = []
    for i, reward in enumerate(total):
        start = i // group * group
        others = total[start:i] + total[i + 1 : start + group]
        mine = [*others, reward]
        mean = sum(mine) / group
        if estimator == "reinforce":
            value = reward - sum(total) / len(total)
        elif estimator == "rloo":
            value = reward - sum(others) / len(others)
        elif estimator == "dr_grpo":
            value = reward - mean
        else:
            value = (reward - mean) / math.sqrt(sum((x - mean) ** 2 for x in mine) / (group - 1))
        result.append([value] * lengths[i])
    return result


@pytest.mark.parametrize("group", [2, 3])
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_advantages_are_the_formulas(estimator, group):
    given = rollouts()
    ours = found(given, estimator, group)
    for row, expected in zip(ours, written_out(given, estimator, group), strict=True):
        assert row[: len(expected)].tolist() == pytest.approx(expected, rel=1e-6)
        assert not row[len(expected) :].any()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_advantages_do_not_see_padding(estimator):
    narrow, wide = found(rollouts(), estimator), found(rollouts(width=9), estimator)
    torch.testing.assert_close(wide[:, :5], narrow)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_advantages_follow_the_groups(estimator):
    given, order = rollouts(), torch.tensor([3, 4, 5, 0, 1, 2])
    moved = Rollouts(
        **{
            name: [value[i] for i in order] if isinstance(value, list) else value[order]
            for name, value in vars(given).items()
        }
    )
    torch.testing.assert_close(found(moved, estimator), found(given, estimator)[order])


class TwoRanks(SingleProcess):
    """Adds what another rank would bring."""

    def __init__(self, other: list[float]) -> None:
        self.other = other

    def total(self, values):
        return [a + b for a, b in zip(values, self.other, strict=True)]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_statistics_of_the_step_are_those_of_all_ranks(estimator):
    """Half of the groups on each rank: the same advantages as on one."""
    whole, halves = rollouts(), []
    for rows in (slice(0, 3), slice(3, 6)):
        halves.append(Rollouts(**{name: value[rows] for name, value in vars(whole).items()}))
    sums: list[list[float]] = []

    class Listening(SingleProcess):
        def total(self, values):
            sums.append(list(values))
            return list(values)

    arguments = {"estimator": estimator, "group": 3, "kl_weight": WEIGHT, "kl": "k1"}
    for half in halves:
        advantages(half, Listening(), **arguments)
    parts = [
        advantages(half, TwoRanks(other), **arguments).advantage_BT
        for half, other in zip(halves, sums[::-1] or [[], []], strict=True)
    ]
    torch.testing.assert_close(torch.cat(parts), found(whole, estimator))


def batch(given: Rollouts, advantage: Tensor, normalisation: str = "token") -> PolicyBatch:
    rows = [Tokens((1, 2), tuple(range(n))) for n in given.mask_BT.sum(1).tolist()]
    shares = token_shares(
        given.mask_BT,
        normalisation,
        tokens=float(given.mask_BT.sum()),
        rows=len(rows),
        max_new_tokens=7,
    )
    (made,) = cut(
        [collate(rows, 0)], [list(range(len(rows)))], given, advantage, lambda mask: shares[:, : mask.size(1)]
    )
    return made


@pytest.mark.parametrize("normalisation", ["token", "sequence", "constant"])
def test_the_loss_over_its_weight_is_the_mean_that_was_asked_for(normalisation):
    given = rollouts()
    advantage = found(given, "rloo")
    made = batch(given, advantage, normalisation)
    new = (given.logprob_BT + 0.1 * torch.randn_like(given.logprob_BT)) * given.mask_BT
    terms = policy_loss(new, made, clip=0.2, clip_high=0.3, kl_weight=0.5, kl="k2")
    per_row = []
    for b, n in enumerate(LENGTHS):
        tokens = []
        for t in range(n):
            ratio = math.exp(new[b, t] - given.logprob_BT[b, t])
            a = advantage[b, t].item()
            gain = min(ratio * a, min(max(ratio, 0.8), 1.3) * a)
            kl = 0.5 * (new[b, t] - given.reference_logprob_BT[b, t]).item() ** 2
            tokens.append(-gain + 0.5 * kl)
        per_row.append(tokens)
    expected = {
        "token": sum(map(sum, per_row)) / sum(LENGTHS),
        "sequence": sum(sum(row) / len(row) for row in per_row) / len(per_row),
        "constant": sum(map(sum, per_row)) / (len(per_row) * 7),
    }[normalisation]
    assert ((terms.policy.loss + terms.kl) / made.weight).item() == pytest.approx(expected, rel=1e-6)


def test_at_ratio_one_the_gradient_is_that_of_reinforce():
    """Advantage times the gradient of log p, whatever the clip."""
    given = rollouts()
    advantage = found(given, "grpo")
    logprob = given.logprob_BT.clone().requires_grad_()
    terms = policy_loss(
        logprob, batch(given, advantage), clip=math.inf, clip_high=None, kl_weight=0.0, kl="k2"
    )
    terms.policy.loss.backward()
    torch.testing.assert_close(logprob.grad, -advantage)
    assert terms.kl == 0


def test_the_gradient_of_k2_in_the_loss_is_the_log_ratio():
    given = rollouts()
    logprob = given.logprob_BT.clone().requires_grad_()
    terms = policy_loss(
        logprob, batch(given, torch.zeros_like(logprob)), clip=0.2, clip_high=None, kl_weight=0.5, kl="k2"
    )
    terms.kl.backward()
    torch.testing.assert_close(logprob.grad, 0.5 * (given.logprob_BT - given.reference_logprob_BT))


@pytest.mark.parametrize("normalisation", ["token", "sequence", "constant"])
def test_losses_of_micro_batches_add_up(normalisation):
    given = rollouts()
    whole = batch(given, found(given, "rloo"), normalisation)
    new = given.logprob_BT + 0.1 * given.mask_BT

    def loss(rows: list[int]) -> Tensor:
        part = PolicyBatch(
            **{
                name: getattr(whole, name)[rows] if isinstance(getattr(whole, name), Tensor) else value
                for name, value in vars(whole).items()
                if name != "sequences"
            },
            sequences=collate([Tokens((1, 2), tuple(range(LENGTHS[i]))) for i in rows], 0),
        )
        time = part.sequences.mask_BT.size(1)
        narrow = PolicyBatch(
            **{n: v[:, :time] if isinstance(v, Tensor) else v for n, v in vars(part).items()}
        )
        terms = policy_loss(new[rows, :time], narrow, clip=0.2, clip_high=None, kl_weight=0.5, kl="k3")
        return terms.policy.loss + terms.kl

    torch.testing.assert_close(loss([3, 0]) + loss([2, 5, 1, 4]), loss(list(range(6))))
