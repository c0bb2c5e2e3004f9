"""The reward model: Bradley-Terry on judged pairs
(Dubois et al. 2023, section 4; examples/scripts/reward_modeling.sh)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alpacafarm.data.rows import read_rows, write_rows
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.stage import Kind, Stage
from alpacafarm.stats.calibration import expected_calibration_error, preference_probability
from alpacafarm.stats.rank import spearman
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Preference, ScoredPair

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm.text.collate import PairBatch
    from alpacafarm.training.pairs import TokenPairs

VERSION = 2
BINS = 10  # of the calibration error: 50 pairs each of the 500 that are held out
MEASURED = 500  # training pairs that give the scores' mean and deviation where none are held out


class Spec(MethodSpec):
    """`held_out` pairs, but no more than a tenth of them, are kept from training, to measure the model on."""

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
        version=VERSION,
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    train_from(spec, inputs, ctx, seed=ctx.seed)


def train_from(spec: Spec, inputs: Inputs, ctx: Context, *, seed: int) -> None:
    """Trains on all but the held-out pairs; a tie counts as probability one half, a soft label as its own.

    `seed` draws the head and the order of the pairs; which of them are held out depends on the run's alone.
    Writes `measured.jsonl`, the held-out pairs with their scores (training pairs where none are held out),
    and records their `measurements`.
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
    reward = ctx.trainable(inputs["init"], spec.optim, head="reward", seed=seed)

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
        seed=seed,
    )
    fit(reward, steps, loss, optim=spec.optim, ctx=ctx, label="reward model")
    places = held or used[:MEASURED]
    scores = ctx.score(reward, [side[i] for i in places for side in (first, second)])
    measured = [scored_pair(pairs, *told) for told in zip(places, scores[::2], scores[1::2], strict=True)]
    if ctx.dist.rank == 0:
        write_rows(ctx.out / "measured.jsonl", measured)
    ctx.record(**measurements(measured, held_out=len(held)), end_with_eos=spec.end_with_eos)
    reward.export(ctx.out / "model")


def split_off(rows: Sequence[Preference], held_out: int, seed: int) -> tuple[list[int], list[int]]:
    """Places of the held-out pairs, at most a tenth of all, and of the others."""
    order = sorted(range(len(rows)), key=lambda i: stable_seed(seed, "held out", rows[i].id))
    count = min(held_out, len(order) // 10)
    return order[:count], order[count:]


def scored_pair(pairs: TokenPairs, place: int, score_1: float, score_2: float) -> ScoredPair:
    row = pairs.rows[place]
    return ScoredPair(
        id=row.id,
        preference=row.preference,
        score_1=score_1,
        score_2=score_2,
        tokens_1=len(pairs.first[place].response),
        tokens_2=len(pairs.second[place].response),
    )


def measurements(pairs: Sequence[ScoredPair], *, held_out: int) -> dict[str, float | None]:
    """What a reward model says of pairs, `held_out` of which (all or none) it was not trained on.

    `reward_mean` and `reward_std` of all responses, for a consumer to centre and scale by;
    `length_correlation`, Spearman's of score and response tokens; on held-out pairs `accuracy`, in percent
    with ties left out, and `ece`, the calibration error of the Bradley-Terry probability in percent.
    """
    scores = [score for pair in pairs for score in (pair.score_1, pair.score_2)]
    tokens = [count for pair in pairs for count in (pair.tokens_1, pair.tokens_2)]
    mean = statistics.fmean(scores)
    return {
        "held_out": held_out,
        "accuracy": accuracy(pairs) if held_out else None,
        "ece": calibration_error(pairs) if held_out else None,
        "length_correlation": spearman(scores, tokens),
        "reward_mean": mean,
        # `statistics.stdev` breaks down over the NaN of a training that diverged.
        "reward_std": math.sqrt(math.fsum((x - mean) ** 2 for x in scores) / (len(scores) - 1)),
    }


def accuracy(pairs: Sequence[ScoredPair]) -> float | None:
    """Percent of the pairs whose better output has the higher score; equal scores are half right.

    None where every pair is a tie.
    """
    right = [
        0.5 if pair.score_1 == pair.score_2 else (pair.score_2 > pair.score_1) == (pair.preference > 1.5)
        for pair in pairs
        if pair.preference != 1.5
    ]
    return 100 * statistics.fmean(right) if right else None


def calibration_error(pairs: Sequence[ScoredPair]) -> float:
    """Percent."""
    told = [preference_probability(pair.score_1, pair.score_2) for pair in pairs]
    return 100 * expected_calibration_error(told, [pair.preference - 1 for pair in pairs], bins=BINS)
