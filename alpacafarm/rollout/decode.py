"""Sampled answers to a split's instructions: the stage that both evaluation and simulated feedback start from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from alpacafarm.data.rows import read_rows, write_outputs, write_text
from alpacafarm.ports import Context, Inputs
from alpacafarm.spec.base import Strict
from alpacafarm.spec.model import Sampling
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Example, Output

if TYPE_CHECKING:
    from alpacafarm.text.collate import Tokens

SHARD = 512  # responses between two saves of a decoding stage


class DecodeSpec(Strict):
    """`n` responses for each instruction. `stream` separates the randomness of stages that decode the same rows."""

    n: int = Field(ge=1)
    sampling: Sampling
    stream: str


def decode(spec: DecodeSpec, inputs: Inputs, ctx: Context) -> None:
    """Writes `outputs.json` (AlpacaEval's columns and ours) and `tokens.jsonl` (the exact ids), in the rows' order.

    A response depends on the weights, the prompt and its own seed alone. Prompts are never dropped here: one that is
    longer than the limit is decoded as it is, and counted.
    """
    from alpacafarm.text.tokenise import decode_response, encode_prompt

    rows = read_rows(inputs["rows"].path / "rows.jsonl", Example)
    tokenizer = ctx.tokenizer(inputs["policy"])
    prefix = str(inputs["policy"].facts.get("prompt_prefix", ""))
    prompts = [
        encode_prompt(tokenizer, ctx.model.prompt, r.instruction, r.input, prefix=prefix) for r in rows
    ]
    jobs = [(row, sample) for row in range(len(rows)) for sample in range(spec.n)]
    responses = _sampled(spec, inputs, ctx, rows, prompts, jobs)
    outputs, tokens = [], []
    for (row, sample), (response, ended) in zip(jobs, responses, strict=True):
        example = rows[row]
        text = decode_response(tokenizer, response)
        outputs.append(
            Output(
                example.id,
                example.instruction,
                example.input,
                text,
                spec.stream,
                sample=sample,
                ended=ended,
                tokens=len(response),
            )
        )
        tokens.append((prompts[row], response))
    if ctx.dist.rank == 0:
        write_outputs(ctx.out / "outputs.json", outputs)
        write_text(
            ctx.out / "tokens.jsonl", "".join(json.dumps([*map(list, pair)]) + "\n" for pair in tokens)
        )
    ctx.record(
        ended_fraction=sum(o.ended for o in outputs) / len(outputs),
        long_prompts=sum(len(p) > ctx.model.max_prompt_tokens for p in prompts),
    )


def _sampled(
    spec: DecodeSpec,
    inputs: Inputs,
    ctx: Context,
    rows: Sequence[Example],
    prompts: Sequence[tuple[int, ...]],
    jobs: Sequence[tuple[int, int]],
) -> list[tuple[tuple[int, ...], bool]]:
    """The responses of all jobs on every rank. Each rank keeps its finished shards in scratch and goes on from them."""
    dist = ctx.dist
    mine = jobs[dist.rank :: dist.world]
    shards = [mine[i : i + SHARD] for i in range(0, len(mine), SHARD)]
    policy = ctx.frozen(inputs["policy"])
    done: list[tuple[tuple[int, ...], bool]] = []
    with ctx.progress(len(mine), f"sample {spec.stream}") as bar, policy.gathered() as model:
        for number, shard in enumerate(shards):
            saved = ctx.scratch / f"shard-{dist.rank}of{dist.world}-{number}.json"
            if not saved.exists():
                with ctx.meter.phase("generate"):
                    sampled = ctx.sample(
                        model,
                        [prompts[row] for row, _ in shard],
                        spec.sampling,
                        seeds=[
                            stable_seed(ctx.seed, spec.stream, rows[row].id, sample) for row, sample in shard
                        ],
                    )
                ctx.meter.count(tokens=sum(map(len, sampled.responses)), samples=len(shard))
                write_text(saved, json.dumps([sampled.responses, sampled.ended]))
            responses, ended = json.loads(saved.read_text())
            done += [(tuple(ids), end) for ids, end in zip(responses, ended, strict=True)]
            bar.advance(len(done))
    shares = dist.gather(done)
    return [shares[i % dist.world][i // dist.world] for i in range(len(jobs))]


def read_tokens(folder: Path) -> list[Tokens]:
    """The exact tokens behind `outputs.json`, in its order."""
    from alpacafarm.text.collate import Tokens

    with (folder / "tokens.jsonl").open() as lines:
        return [Tokens(*map(tuple, json.loads(line))) for line in lines]


def write_tokens(folder: Path, tokens: Sequence[Tokens]) -> None:
    write_text(folder / "tokens.jsonl", "".join(json.dumps([t.prompt, t.response]) + "\n" for t in tokens))
