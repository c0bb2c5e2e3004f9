"""Supervised fine-tuning on demonstrations (Dubois et al. 2023, section 4; examples/scripts/sft.sh)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from pydantic import Field

from alpacafarm.data.rows import read_rows
from alpacafarm.errors import SpecError
from alpacafarm.ports import Artifact, Context, Engine, Inputs, LossFn, Upstream
from alpacafarm.spec.base import Strict
from alpacafarm.spec.data import Split
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.stage import Kind, Node, Stage
from alpacafarm.types import Example, Preference

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from alpacafarm.text.collate import SequenceBatch, Tokens
    from alpacafarm.training.batches import Steps


class Spec(MethodSpec):
    """`epochs` over `splits`; the loss is on response tokens, the end token included."""

    splits: list[Split] = Field(min_length=1)
    epochs: int = Field(ge=1)
    optim: OptimSpec


class TrainSpec(Strict):
    """What `train` needs: which rows these are is in its inputs."""

    epochs: int
    optim: OptimSpec


def plan(spec: Spec, up: Upstream) -> Stage:
    rows = {f"rows {split}": up.rows(split) for split in spec.splits}
    return tuned(spec.name, spec, up, init=up.base(), demonstrations=rows)


class Tuning(Protocol):
    """What the spec of any method must have that ends in supervised fine-tuning."""

    @property
    def epochs(self) -> int: ...
    @property
    def optim(self) -> OptimSpec: ...


def tuned(name: str, spec: Tuning, up: Upstream, *, init: Node, demonstrations: Mapping[str, Node]) -> Stage:
    """Supervised fine-tuning of `init` on rows, on sampled outputs, or on the chosen side of judged pairs."""
    return up.stage(
        name,
        "alpacafarm.methods.sft:train",
        TrainSpec(epochs=spec.epochs, optim=spec.optim),
        makes=Kind.POLICY,
        inputs={"init": init, **demonstrations},
    )


def train(spec: TrainSpec, inputs: Inputs, ctx: Context) -> None:
    """Every input but `init` is demonstrations. Of sampled outputs the very tokens are learned."""
    from alpacafarm.text.tokenise import fit as fit_lengths
    from alpacafarm.training.offline import fit

    tokenizer = ctx.tokenizer(inputs["init"])
    rows = [
        row
        for role, artifact in sorted(inputs.items())
        if role != "init"
        for row in demonstrations(artifact, tokenizer, ctx)
    ]
    fitted = fit_lengths(
        rows,
        max_prompt_tokens=ctx.model.max_prompt_tokens,
        max_response_tokens=ctx.model.max_response_tokens,
    )
    ctx.record(dropped_prompts=fitted.too_long_prompts, truncated_responses=fitted.truncated_responses)
    policy = ctx.trainable(inputs["init"], spec.optim)
    steps = token_steps(fitted.rows, spec.epochs, spec.optim, tokenizer.pad_token_id, ctx)
    fit(policy, steps, negative_log_likelihood(policy), optim=spec.optim, ctx=ctx, label=ctx.name)
    policy.export(ctx.out / "model")


def demonstrations(artifact: Artifact, tokenizer: PreTrainedTokenizerBase, ctx: Context) -> list[Tokens]:
    """Prompts with the answers to imitate. Pairs give the chosen response; ties are counted and left out."""
    from alpacafarm.rollout.decode import read_tokens
    from alpacafarm.text.tokenise import encode_rows

    if artifact.kind is Kind.OUTPUTS:
        return read_tokens(artifact.path)
    if artifact.kind is Kind.PAIRS:
        pairs = read_rows(artifact.path / "pairs.jsonl", Preference)
        examples = [
            Example(p.id, p.instruction, p.input, p.output_2 if p.is_second_better else p.output_1)
            for p in pairs
            if not p.is_tie
        ]
        ctx.record(ties=len(pairs) - len(examples))
        if not examples:
            raise SpecError(
                f"each of the {len(pairs)} judged pairs is a tie, and nothing is chosen of a tie; give pairs "
                "with a better output"
            )
    else:
        examples = read_rows(artifact.path / "rows.jsonl", Example)
        if not any(row.output for row in examples):
            raise SpecError(
                f"{artifact.path / 'rows.jsonl'}: none of the {len(examples)} rows has an output to learn "
                "from; leave the split out of method.splits, or give data.SPLIT a file with outputs"
            )
    return encode_rows(tokenizer, ctx.model.prompt, examples)


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
