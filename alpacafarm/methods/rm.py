"""The reward model: Bradley-Terry on judged pairs
(Dubois et al. 2023, section 4; examples/scripts/reward_modeling.sh)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alpacafarm.data.rows import read_rows
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.stage import Kind, Stage
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Preference

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm.text.collate import PairBatch


class Spec(MethodSpec):
    """`held_out` pairs, but no more than a tenth of them, are kept from training.

    They measure accuracy and the scores' mean and deviation.
    """

    epochs: int = Field(ge=1)
    optim: OptimSpec
    held_out: int = Field(ge=0)
    end_with_eos: bool  # whether a response is scored with its end token; the published models were not


def plan(spec: Spec, up: Upstream) -> Stage:
    return up.stage(
        "rm",
        "alpacafarm.methods.rm:train",
        spec,
        makes=Kind.REWARD,
        inputs={"init": up.sft(), "pairs": up.preferences()},
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    """Trains on all but the held-out pairs; ties count as probability one half.

    Records `reward_mean` and `reward_std` over the held-out responses (the training ones where none are held
    out), so that a consumer can centre and scale, and `accuracy` on held-out pairs with ties left out.
    """
    from alpacafarm.ops.preference import bradley_terry_loss
    from alpacafarm.text.collate import scored
    from alpacafarm.training.offline import fit
    from alpacafarm.training.pairs import TokenPairs, as_it_is, pair_steps, tokenised

    tokenizer = ctx.tokenizer(inputs["init"])
    judged = read_rows(inputs["pairs"].path / "pairs.jsonl", Preference)
    read = tokenised(judged, tokenizer, ctx, purpose="the reward model")
    first, second = (
        [scored(row, tokenizer.eos_token_id, with_eos=spec.end_with_eos) for row in side]
        for side in (read.first, read.second)
    )
    pairs = TokenPairs(first, second, read.rows)
    held, used = split_off(pairs.rows, spec.held_out, ctx.seed)
    reward = ctx.trainable(inputs["init"], spec.optim, head="reward")

    def loss(batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        score_1_B, score_2_B = reward(batch.sequences).chunk(2)
        loss_B = bradley_terry_loss(score_1_B, score_2_B, batch.probability_2_B)
        agrees_B = ((score_2_B > score_1_B).float() - batch.probability_2_B).abs() < 0.5
        return loss_B.sum(), {"accuracy": agrees_B.sum(), "margin": (score_2_B - score_1_B).abs().sum()}

    steps = pair_steps(
        pairs,
        used,
        epochs=spec.epochs,
        optim=spec.optim,
        pad_id=tokenizer.pad_token_id,
        ctx=ctx,
        attach=as_it_is,
    )
    fit(reward, steps, loss, optim=spec.optim, ctx=ctx, label="reward model")
    measured = held or used[: min(len(used), 500)]
    scores = ctx.score(reward, [first[i] for i in measured] + [second[i] for i in measured])
    found = measurements(scores, [pairs.rows[i].preference for i in measured])
    if not held:
        found["accuracy"] = None
    ctx.record(**found, end_with_eos=spec.end_with_eos)
    reward.export(ctx.out / "model")


def split_off(rows: Sequence[Preference], held_out: int, seed: int) -> tuple[list[int], list[int]]:
    """Places of the held-out pairs, at most a tenth of all, and of the others."""
    order = sorted(range(len(rows)), key=lambda i: stable_seed(seed, "held out", rows[i].id))
    count = min(held_out, len(order) // 10)
    return order[:count], order[count:]


def measurements(scores: Sequence[float], preferences: Sequence[float]) -> dict[str, float | None]:
    """Accuracy in percent (ties left out); mean and deviation of the scores, which are one side, then the
    other."""
    half = len(preferences)
    decided = [
        (b > a) == (p > 1.5)
        for a, b, p in zip(scores[:half], scores[half:], preferences, strict=True)
        if p != 1.5
    ]
    return {
        "accuracy": 100 * statistics.fmean(decided) if decided else None,
        "reward_mean": statistics.fmean(scores),
        "reward_std": statistics.stdev(scores),
    }
