"""The reward model: Bradley-Terry on judged pairs
(Dubois et al. 2023, section 4; examples/scripts/reward_modeling.sh)."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alpacafarm.data.rows import read_rows
from alpacafarm.errors import SpecError
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.stage import Kind, Stage
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Example, Preference

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from alpacafarm.text.collate import PairBatch, Tokens


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
    from alpacafarm.text.collate import collate_pairs
    from alpacafarm.training.batches import Steps, step_rows
    from alpacafarm.training.offline import fit

    tokenizer = ctx.tokenizer(inputs["init"])
    pairs = read_rows(inputs["pairs"].path / "pairs.jsonl", Preference)
    first, second, kept = tokenised(pairs, tokenizer, spec, ctx)
    order = sorted(range(len(kept)), key=lambda i: stable_seed(ctx.seed, "held out", kept[i].id))
    if not kept:
        raise SpecError(
            f"none of {len(pairs)} judged pairs is left to train the reward model on: every prompt has more "
            f"than model.max_prompt_tokens={ctx.model.max_prompt_tokens}; raise it, or give shorter ones"
        )
    count = min(spec.held_out, len(order) // 10)
    held, used = order[:count], order[count:]
    reward = ctx.trainable(inputs["init"], spec.optim, head="reward")

    def collate_rows(indices: Sequence[int]) -> PairBatch:
        rows = [used[i] for i in indices]
        return collate_pairs(
            [first[i] for i in rows],
            [second[i] for i in rows],
            [kept[i].preference - 1 for i in rows],
            tokenizer.pad_token_id,
        )

    def loss(batch: PairBatch) -> tuple[Tensor, dict[str, Tensor]]:
        score_1_B, score_2_B = reward(batch.sequences).chunk(2)
        loss_B = bradley_terry_loss(score_1_B, score_2_B, batch.probability_2_B)
        agrees_B = ((score_2_B > score_1_B).float() - batch.probability_2_B).abs() < 0.5
        return loss_B.sum(), {"accuracy": agrees_B.sum(), "margin": (score_2_B - score_1_B).abs().sum()}

    steps = Steps(
        rows_of=step_rows(
            len(used),
            batch_size=spec.optim.batch_size,
            epochs=spec.epochs,
            seed=ctx.seed,
        ),
        lengths=[max(first[i].length, second[i].length) for i in used],
        collate=collate_rows,
        micro_batch=ctx.micro_batch,
        rank=ctx.dist.rank,
        world=ctx.dist.world,
    )
    fit(reward, steps, loss, optim=spec.optim, ctx=ctx, label="reward model")
    measured = held or used[: min(len(used), 500)]
    scores = ctx.score(reward, [first[i] for i in measured] + [second[i] for i in measured])
    found = measurements(scores, [kept[i].preference for i in measured])
    if not held:
        found["accuracy"] = None
    ctx.record(**found, end_with_eos=spec.end_with_eos)
    reward.export(ctx.out / "model")


def tokenised(
    pairs: Sequence[Preference], tokenizer: PreTrainedTokenizerBase, spec: Spec, ctx: Context
) -> tuple[list[Tokens], list[Tokens], list[Preference]]:
    """Both sides of every pair whose prompt fits; counts what does not."""
    from alpacafarm.text.collate import scored
    from alpacafarm.text.tokenise import encode_rows, fit

    one, two = (
        fit(
            encode_rows(
                tokenizer,
                ctx.model.prompt,
                [Example(p.id, p.instruction, p.input, getattr(p, side)) for p in pairs],
            ),
            max_prompt_tokens=ctx.model.max_prompt_tokens,
            max_response_tokens=ctx.model.max_response_tokens,
        )
        for side in ("output_1", "output_2")
    )
    assert one.kept == two.kept  # what is dropped depends on the prompt alone
    ctx.record(
        dropped_prompts=one.too_long_prompts,
        truncated_responses=one.truncated_responses + two.truncated_responses,
        pairs=len(one.kept),
    )
    first, second = (
        [scored(row, tokenizer.eos_token_id, with_eos=spec.end_with_eos) for row in side.rows]
        for side in (one, two)
    )
    return first, second, [pairs[i] for i in one.kept]


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
