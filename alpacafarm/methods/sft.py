"""Supervised fine-tuning on demonstrations (Dubois et al. 2023, section 4; examples/scripts/sft.sh)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from alpacafarm.data.rows import read_rows
from alpacafarm.ports import Context, Engine, Inputs, LossFn, Upstream
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.stage import Kind, Stage
from alpacafarm.types import Example

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm.text.collate import SequenceBatch, Tokens
    from alpacafarm.training.batches import Steps


class Spec(MethodSpec):
    """`epochs` over the `sft` split; the loss is on response tokens, the end token included."""

    epochs: int = Field(ge=1)
    optim: OptimSpec


def plan(spec: Spec, up: Upstream) -> Stage:
    return up.stage(
        "sft",
        "alpacafarm.methods.sft:train",
        spec,
        makes=Kind.POLICY,
        inputs={"init": up.base(), "rows": up.rows("sft")},
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    from alpacafarm.text.tokenise import encode_rows
    from alpacafarm.text.tokenise import fit as fit_lengths
    from alpacafarm.training.offline import fit

    tokenizer = ctx.tokenizer(inputs["init"])
    examples = read_rows(inputs["rows"].path / "rows.jsonl", Example)
    rows = encode_rows(tokenizer, ctx.model.prompt, examples)
    fitted = fit_lengths(
        rows,
        max_prompt_tokens=ctx.model.max_prompt_tokens,
        max_response_tokens=ctx.model.max_response_tokens,
    )
    ctx.record(dropped_prompts=fitted.too_long_prompts, truncated_responses=fitted.truncated_responses)
    policy = ctx.trainable(inputs["init"], spec.optim)
    steps = token_steps(fitted.rows, spec.epochs, spec.optim, tokenizer.pad_token_id, ctx)
    fit(policy, steps, negative_log_likelihood(policy), optim=spec.optim, ctx=ctx, label="sft")
    policy.export(ctx.out / "model")


def token_steps(
    rows: Sequence[Tokens], epochs: int, optim: OptimSpec, pad_id: int, ctx: Context
) -> Steps[SequenceBatch]:
    """Optimiser steps over tokenised rows."""
    from alpacafarm.text.collate import collate
    from alpacafarm.training.batches import Steps, step_rows

    return Steps(
        rows_of=step_rows(len(rows), batch_size=optim.batch_size, epochs=epochs, seed=ctx.seed),
        lengths=[row.length for row in rows],
        collate=lambda indices: collate([rows[i] for i in indices], pad_id),
        micro_batch=ctx.micro_batch,
        rank=ctx.dist.rank,
        world=ctx.dist.world,
    )


def negative_log_likelihood(policy: Engine) -> LossFn[SequenceBatch]:
    """Cross-entropy summed over response tokens."""

    def loss(batch: SequenceBatch) -> tuple[Tensor, dict[str, Tensor]]:
        return -policy(batch).logprob_BT.sum(), {}

    return loss
