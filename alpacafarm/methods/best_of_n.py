"""Best-of-n at inference time: sample n responses, keep the one the reward model likes best
(examples/best_of_n.py)."""

from __future__ import annotations

from pydantic import Field

from alpacafarm.data.rows import read_outputs, read_rows, write_outputs
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.rollout.decode import DecodeSpec
from alpacafarm.spec.data import Split
from alpacafarm.spec.method import MethodSpec
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Kind, Stage
from alpacafarm.types import Example


class Spec(MethodSpec):
    """`n` samples for each instruction of `split`."""

    n: int = Field(ge=1)
    split: Split
    sampling: Sampling


def plan(spec: Spec, up: Upstream) -> Stage:
    rows = up.rows(spec.split)
    samples = up.stage(
        f"sample {spec.n}",
        "alpacafarm.rollout.decode:decode",
        DecodeSpec(n=spec.n, sampling=spec.sampling, stream="best_of_n"),
        makes=Kind.OUTPUTS,
        inputs={"policy": up.sft(), "rows": rows},
    )
    return up.stage(
        "best_of_n",
        "alpacafarm.methods.best_of_n:choose",
        spec,
        makes=Kind.OUTPUTS,
        inputs={"samples": samples, "reward": up.reward(), "rows": rows},
    )


def choose(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    """The sample with the highest score for each instruction, the first one among equals.

    Records `kl_bound`, the analytic upper bound log n - (n - 1) / n on the divergence from the
    policy, in nats.
    """
    from alpacafarm.rollout.decode import read_tokens, write_tokens
    from alpacafarm.stats.select import best_of, best_of_n_kl

    outputs = read_outputs(inputs["samples"].path / "outputs.json")
    tokens = read_tokens(inputs["samples"].path)
    vocabulary = inputs["samples"].facts.get("vocabulary")
    scores = ctx.scorer(inputs["reward"], vocabulary=vocabulary).score(tokens)
    groups: dict[str, list[int]] = {
        row.id: [] for row in read_rows(inputs["rows"].path / "rows.jsonl", Example)
    }
    for index, output in enumerate(outputs):
        groups[output.id].append(index)
    best = [group[best_of([scores[i] for i in group])] for group in groups.values()]
    if ctx.dist.rank == 0:
        write_outputs(ctx.out / "outputs.json", [outputs[i] for i in best])
        write_tokens(ctx.out, [tokens[i] for i in best])
    ctx.record(kl_bound=best_of_n_kl(spec.n), vocabulary=vocabulary)
