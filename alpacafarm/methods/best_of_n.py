"""Best-of-n at inference time: sample n responses, keep the one the reward model likes best
(Stiennon et al. 2020; Dubois et al. 2023, section 4; examples/best_of_n.py)."""

from __future__ import annotations

from pydantic import Field, model_validator

from alpacafarm.data.rows import read_outputs, write_outputs
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.rollout.decode import DecodeSpec
from alpacafarm.spec.base import Problem, Strict, refuse
from alpacafarm.spec.data import Split
from alpacafarm.spec.method import MethodSpec
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Kind, Node, Stage


class Spec(MethodSpec):
    """`n` samples for each instruction of `split`: the first n of `pool`, which runs of several n share."""

    n: int = Field(ge=1)
    pool: int | None = Field(ge=1)
    split: Split
    sampling: Sampling

    @model_validator(mode="after")
    def pool_holds_n(self) -> Spec:
        if self.pool is not None and self.pool < self.n:
            text = f"must be at least .n={self.n}; set .pool={self.n} or more, or null for just as many"
            refuse(Problem("pool", self.pool, text))
        return self


class ChooseSpec(Strict):
    """The best of the first `n` samples of each instruction."""

    n: int


def plan(spec: Spec, up: Upstream) -> Stage:
    return chosen(
        "best_of_n",
        up,
        up.sft(),
        n=spec.n,
        decoding=DecodeSpec(n=spec.pool or spec.n, sampling=spec.sampling, stream="best_of_n", prompts=None),
        split=spec.split,
    )


def chosen(
    name: str, up: Upstream, policy: Node, *, n: int, decoding: DecodeSpec, split: Split, ordinal: str = ""
) -> Stage:
    """The stages that sample from `policy` and choose by the run's reward model: OUTPUTS, one for each
    instruction. `ordinal` tells apart the stages of a plan that does so several times."""
    rows = [count for count in (up.row_count(split), decoding.prompts) if count is not None]
    samples = up.stage(
        f"sample {decoding.n}{ordinal}",
        "alpacafarm.rollout.decode:decode",
        decoding,
        makes=Kind.OUTPUTS,
        inputs={"policy": policy, "rows": up.rows(split)},
        needs=f"{decoding.n * min(rows):,} responses" if rows else "",
    )
    return up.stage(
        f"{name}{ordinal}",
        "alpacafarm.methods.best_of_n:choose",
        ChooseSpec(n=n),
        makes=Kind.OUTPUTS,
        inputs={"samples": samples, "reward": up.reward()},
    )


def choose(spec: ChooseSpec, inputs: Inputs, ctx: Context) -> None:
    """The sample with the highest score for each instruction, the first one among equals.

    Records `kl_bound`, the analytic upper bound log n - (n - 1) / n on the divergence from the
    policy, in nats.
    """
    from alpacafarm.rollout.decode import read_tokens, write_tokens
    from alpacafarm.stats.select import best_of, best_of_n_kl

    drawn = read_outputs(inputs["samples"].path / "outputs.json")
    pairs = zip(drawn, read_tokens(inputs["samples"].path), strict=True)
    outputs, tokens = zip(*((o, t) for o, t in pairs if o.sample < spec.n), strict=True)
    vocabulary = inputs["samples"].facts.get("vocabulary")
    scores = ctx.scorer(inputs["reward"], vocabulary=vocabulary).score(tokens)
    groups: dict[str, list[int]] = {}
    for index, output in enumerate(outputs):
        groups.setdefault(output.id, []).append(index)
    best = [group[best_of([scores[i] for i in group])] for group in groups.values()]
    if ctx.dist.rank == 0:
        write_outputs(ctx.out / "outputs.json", [outputs[i] for i in best])
        write_tokens(ctx.out, [tokens[i] for i in best])
    ctx.record(kl_bound=best_of_n_kl(spec.n), vocabulary=vocabulary)
