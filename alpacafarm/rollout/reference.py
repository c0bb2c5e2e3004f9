"""What the reference policy says of given responses: computed once, whatever is then trained on them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from alpacafarm.data.rows import read_rows, write_text
from alpacafarm.errors import ArtifactError
from alpacafarm.ports import Artifact, Context, Engine, Inputs, Upstream
from alpacafarm.rollout.order import by_length
from alpacafarm.spec.base import Strict
from alpacafarm.stage import Kind, Node, Stage, content_key
from alpacafarm.types import Preference, Thumb

if TYPE_CHECKING:
    from alpacafarm.text.collate import Tokens

FILE = "logprobs.jsonl"
PASS = 1024  # rows of one rank between two movements of the bar


class ReferenceSpec(Strict):
    """Nothing: policy and responses are inputs, and methods with other losses share what is measured."""


def reference_stage(up: Upstream, judged: Mapping[str, Node]) -> Stage:
    """Log-probabilities under the SFT model of all responses of `judged`: of `pairs` or of `thumbs`."""
    stage = up.stage(
        "reference",
        "alpacafarm.rollout.reference:measure",
        ReferenceSpec(),
        makes=Kind.LOGPROBS,
        inputs={"policy": up.sft(), **judged},
        needs="one forward pass over the responses",
    )
    return replace(stage, seed=0)  # nothing is drawn


def measure(spec: ReferenceSpec, inputs: Inputs, ctx: Context) -> None:
    """Writes `logprobs.jsonl`: for each response its exact tokens' fingerprint and log-probability."""
    from alpacafarm.training.pairs import tokenised
    from alpacafarm.training.thumbs import tokenised_thumbs

    tokenizer = ctx.tokenizer(inputs["policy"])
    if "thumbs" in inputs:
        thumbs = read_rows(inputs["thumbs"].path / "rows.jsonl", Thumb)
        rows = tokenised_thumbs(thumbs, tokenizer, ctx).rows
    else:
        judged = read_rows(inputs["pairs"].path / "pairs.jsonl", Preference)
        pairs = tokenised(judged, tokenizer, ctx, purpose="a policy")
        rows = [*pairs.first, *pairs.second]
    write_logprobs(rows, inputs["policy"], ctx)


def write_logprobs(rows: Sequence[Tokens], weights: Artifact, ctx: Context) -> None:
    """Measures every row once and leaves them for `read_logprobs`."""
    unique = list(dict.fromkeys(rows))
    found = response_logprobs(ctx.frozen(weights), unique, ctx)
    if ctx.dist.rank == 0:
        lines = (
            json.dumps({"row": fingerprint(row), "logprob": value})
            for row, value in zip(unique, found, strict=True)
        )
        write_text(ctx.out / FILE, "".join(line + "\n" for line in lines))
    ctx.record(responses=len(unique))


def read_logprobs(artifact: Artifact, rows: Sequence[Tokens]) -> list[float]:
    """log p(response | prompt) of each row; ArtifactError where one of them was not measured."""
    path = artifact.path / FILE
    try:
        told = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        known = {str(line["row"]): float(line["logprob"]) for line in told}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path}: no log-probabilities can be read ({error}); {AGAIN}") from None
    keys = [fingerprint(row) for row in rows]
    missing = sum(key not in known for key in keys)
    if missing:
        raise ArtifactError(
            f"{path}: {missing} of {len(rows)} responses are not in it: it was measured on others, "
            f"with another tokenizer or under other token limits; {AGAIN}"
        )
    return [known[key] for key in keys]


AGAIN = "delete the folder, and the same command measures them again"


def fingerprint(row: Tokens) -> str:
    """Stands for the exact token ids of prompt and response."""
    return content_key([row.prompt, row.response])


def response_logprobs(policy: Engine, rows: Sequence[Tokens], ctx: Context) -> list[float]:
    """log p(response | prompt) in nats, summed over response tokens, of every row on every rank.

    Each rank computes a share. Shares are filled up with repeated rows: where weights are sharded (ZeRO-3),
    every rank must bring equally many batches.
    """
    rank, world = ctx.dist.rank, ctx.dist.world
    share = -(-len(rows) // world)
    mine = [rows[(rank + k * world) % len(rows)] for k in range(share)]
    found: list[float] = []
    with ctx.progress(share, "log-probabilities") as bar:
        for start in range(0, share, PASS):
            part = mine[start : start + PASS]
            with ctx.meter.phase("log-probabilities"):
                found += ctx.logprobs(policy, part, temperature=1.0).double().sum(1).tolist()
            lengths = [row.length for row in part]
            computed = sum(len(cut) * lengths[cut[-1]] for cut in by_length(lengths, ctx.micro_batch))
            ctx.meter.count(tokens=sum(lengths), samples=len(part), computed=computed)
            bar.advance(len(found))
    shares = ctx.dist.gather(found)
    return [shares[i % world][i // world] for i in range(len(rows))]
