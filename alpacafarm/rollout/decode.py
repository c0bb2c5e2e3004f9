"""Sampled answers to a split's instructions: what evaluation and simulated feedback both start from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from alpacafarm.data.rows import read_rows, write_outputs, write_text
from alpacafarm.ports import Artifact, Context, Inputs
from alpacafarm.rollout import shards
from alpacafarm.rollout.shards import Response
from alpacafarm.spec.base import Strict
from alpacafarm.spec.model import Sampling
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Example, Output

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alpacafarm.text.collate import Tokens
    from alpacafarm.text.tokenise import Ids


class DecodeSpec(Strict):
    """`n` responses for each of `prompts` instructions drawn from the seed (null: for all).

    `stream` separates the randomness of stages over the same rows.
    """

    n: int = Field(ge=1)
    sampling: Sampling
    stream: str
    prompts: int | None


@dataclass(frozen=True)
class Answers:
    """What a policy answered, in the order of the rows. `tokens` have the prompts as any model reads them."""

    outputs: list[Output]
    tokens: list[Tokens]
    shortened_prompts: int


def decode(spec: DecodeSpec, inputs: Inputs, ctx: Context) -> None:
    """Writes `outputs.json` (AlpacaEval's columns and ours) and `tokens.jsonl` (exact ids), in row order."""
    policy = inputs["policy"]
    rows = drawn(read_rows(inputs["rows"].path / "rows.jsonl", Example), spec.prompts, ctx.seed)
    found = answers(spec, policy, rows, ctx)
    if ctx.dist.rank == 0:
        write_outputs(ctx.out / "outputs.json", found.outputs)
        write_tokens(ctx.out, found.tokens)
    ctx.record(
        vocabulary=ctx.vocabulary(policy),
        prompt_prefix=prompt_prefix(policy),
        ended_fraction=sum(o.ended for o in found.outputs) / len(found.outputs),
        shortened_prompts=found.shortened_prompts,
    )


def answers(spec: DecodeSpec, policy: Artifact, rows: Sequence[Example], ctx: Context) -> Answers:
    """`spec.n` responses to each of `rows`, the same on every rank.

    A response depends on the weights, the prompt and its own seed alone. No row is dropped: a prompt that the
    model has no positions for is cut out of the middle, and counted. A policy with a prompt prefix is asked
    with it.
    """
    from alpacafarm.text.collate import Tokens
    from alpacafarm.text.tokenise import decode_responses, with_prefix

    tokenizer = ctx.tokenizer(policy)
    prompts, cut = _prompts(spec, policy, rows, ctx)
    jobs = [(row, sample) for row in range(len(rows)) for sample in range(spec.n)]
    asked = with_prefix(tokenizer, prompts, prompt_prefix(policy))
    responses = _sampled(spec, policy, ctx, rows, asked, jobs)
    texts = decode_responses(tokenizer, [ids for ids, _ in responses])
    outputs = [
        Output(
            id=rows[row].id,
            instruction=rows[row].instruction,
            input=rows[row].input,
            output=text,
            generator=f"{spec.stream}-{policy.key}",
            dataset=rows[row].dataset,
            sample=sample,
            ended=ended,
            tokens=len(ids),
        )
        for (row, sample), (ids, ended), text in zip(jobs, responses, texts, strict=True)
    ]
    pairs = zip(jobs, responses, strict=True)
    return Answers(outputs, [Tokens(prompts[row], ids) for (row, _), (ids, _) in pairs], cut)


def drawn(rows: Sequence[Example], count: int | None, seed: int) -> list[Example]:
    """`count` of the rows, in their order; all of them where there are no more."""
    order = sorted(range(len(rows)), key=lambda i: stable_seed(seed, "prompts", rows[i].id))
    return [rows[i] for i in sorted(order[:count])]


def _prompts(
    spec: DecodeSpec, policy: Artifact, rows: Sequence[Example], ctx: Context
) -> tuple[list[tuple[int, ...]], int]:
    """Every row's prompt, and how many had to be shortened to leave room for prefix and response."""
    from alpacafarm.text.tokenise import encode_prompts, shorten, with_prefix

    tokenizer = ctx.tokenizer(policy)
    asked = [(row.instruction, row.input) for row in rows]
    whole = encode_prompts(tokenizer, ctx.model.prompt, asked)
    positions = ctx.positions(policy)
    if positions is None:
        return whole, 0
    (ahead,) = with_prefix(tokenizer, [()], prompt_prefix(policy))
    room = positions - spec.sampling.max_new_tokens - len(ahead)
    prompts = [shorten(prompt, room) for prompt in whole]
    return prompts, sum(short != prompt for short, prompt in zip(prompts, whole, strict=True))


def _sampled(
    spec: DecodeSpec,
    weights: Artifact,
    ctx: Context,
    rows: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    jobs: Sequence[tuple[int, int]],
) -> list[Response]:
    """The responses of all jobs on every rank. Each rank keeps its finished shards and goes on from them.

    What another number of ranks has finished is taken over.
    """
    dist = ctx.dist
    known = _of_other_ranks(ctx, weights.key, len(jobs))
    mine = range(len(jobs))[dist.rank :: dist.world]
    policy = ctx.frozen(weights)
    done: list[Response] = []
    with ctx.progress(len(mine), f"sample {spec.stream}") as bar, policy.gathered() as model:
        for number, start in enumerate(range(0, len(mine), shards.SHARD)):
            shard = mine[start : start + shards.SHARD]
            place = shards.path(ctx.scratch, weights.key, dist.rank, dist.world, number)
            if not place.exists():
                todo = [job for job in shard if job not in known]
                asked = [prompts[jobs[job][0]] for job in todo]
                seeds = [
                    stable_seed(ctx.seed, spec.stream, rows[row].id, sample)
                    for row, sample in (jobs[job] for job in todo)
                ]
                fresh = _fresh(model, asked, seeds, spec.sampling, ctx) if todo else []
                found = known | dict(zip(todo, fresh, strict=True))
                shards.write(place, [found[job] for job in shard])
            done += shards.read(place)
            bar.advance(len(done))
    shares = dist.gather(done)
    return [shares[i % dist.world][i // dist.world] for i in range(len(jobs))]


def _fresh(
    model: PreTrainedModel, asked: Sequence[Ids], seeds: Sequence[int], sampling: Sampling, ctx: Context
) -> list[Response]:
    with ctx.meter.phase("generate"):
        sampled = ctx.sample(model, asked, sampling, seeds=seeds)
    read = [*asked, *sampled.responses]
    ctx.meter.count(tokens=sum(map(len, read)), samples=len(asked), computed=sampled.computed_tokens)
    return list(zip(sampled.responses, sampled.ended, strict=True))


def _of_other_ranks(ctx: Context, key: str, jobs: int) -> dict[int, Response]:
    """By job what an earlier attempt on another number of ranks had finished. All ranks call."""
    told = shards.of_other_worlds(ctx.scratch, key, ctx.dist.world) if ctx.dist.rank == 0 else None
    found: dict[int, dict[int, Response]] = ctx.dist.broadcast(told)
    for world, responses in found.items():
        ctx.went_on(f"{len(responses)} of {jobs} responses, sampled on {world} ranks, on {ctx.dist.world}")
    return {job: response for responses in found.values() for job, response in responses.items()}


def prompt_prefix(policy: Artifact) -> str:
    """What has to stand before every prompt of this policy: a control token, or nothing."""
    return str(policy.facts.get("prompt_prefix", ""))


def read_tokens(folder: Path) -> list[Tokens]:
    """The exact tokens behind `outputs.json`, in its order."""
    from alpacafarm.text.collate import Tokens

    with (folder / "tokens.jsonl").open() as lines:
        return [Tokens(*map(tuple, json.loads(line))) for line in lines]


def write_tokens(folder: Path, tokens: Sequence[Tokens]) -> None:
    write_text(folder / "tokens.jsonl", "".join(json.dumps([t.prompt, t.response]) + "\n" for t in tokens))
