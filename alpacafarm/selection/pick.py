"""From a training with snapshots to one policy: by step, or by what the `val` split says of each snapshot."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from alpacafarm.artifacts.link import link_tree
from alpacafarm.data.rows import read_outputs, read_rows
from alpacafarm.judges import knows
from alpacafarm.judges.knows import check_judge, judge_inputs
from alpacafarm.ports import Artifact, Context, Inputs, Upstream
from alpacafarm.rollout.decode import DecodeSpec, prompt_prefix
from alpacafarm.spec.base import Strict
from alpacafarm.spec.judge import JudgeSpec
from alpacafarm.spec.method import OnPolicySpec, PickJudge, PickReward, PickStep, TrainedSpec
from alpacafarm.stage import NOTHING_TO_PAY, Bill, Kind, Node, Stage
from alpacafarm.stats.winrate import win_rate
from alpacafarm.types import Example, Output, Pair


class ByReward(Strict):
    pick: PickReward


class ByJudge(Strict):
    pick: PickJudge


def trained(
    run: str,
    spec: TrainedSpec,
    up: Upstream,
    *,
    inputs: Mapping[str, Node],
    needs: str = "",
    bill: Bill = NOTHING_TO_PAY,
    version: int = 1,
) -> Stage:
    """The training stage of a method, and behind it the one that picks a snapshot where `spec.pick` says so.

    How it is picked is no part of the training's key: another choice trains nothing anew.
    """
    training = up.stage(
        spec.name,
        run,
        spec.model_copy(update={"pick": None}),
        makes=Kind.POLICY,
        inputs=inputs,
        needs=needs,
        bill=bill,
        version=version,
    )
    if spec.pick is None:
        return training
    if isinstance(spec.pick, PickStep):
        return up.stage(
            f"pick step {spec.pick.step}",
            "alpacafarm.selection.pick:by_step",
            spec.pick,
            makes=Kind.POLICY,
            inputs={"trained": training},
            uses_model=False,
        )
    if isinstance(spec.pick, PickReward):
        return up.stage(
            "pick by reward",
            "alpacafarm.selection.pick:by_reward",
            ByReward(pick=spec.pick),
            makes=Kind.POLICY,
            inputs={"trained": training, "rows": up.rows("val"), "reward": up.reward()},
            needs="every snapshot on the val split",
        )
    return _by_judge(spec.pick, spec, training, up)


def _by_judge(pick: PickJudge, spec: TrainedSpec, training: Stage, up: Upstream) -> Stage:
    check_judge(pick.judge, "method.pick", up)
    rows = up.rows("val")
    opponents = up.stage(
        "decode sft on val",
        "alpacafarm.rollout.decode:decode",
        DecodeSpec(n=1, sampling=pick.sampling, stream="pick sft", prompts=None),
        makes=Kind.OUTPUTS,
        inputs={"policy": up.sft(), "rows": rows},
    )
    asked = judge_inputs(pick.judge, "method.pick", up)
    return up.stage(
        "pick by judge",
        "alpacafarm.selection.pick:by_judge",
        ByJudge(pick=pick),
        makes=Kind.POLICY,
        inputs={"trained": training, "rows": rows, "opponents": opponents, **asked},
        bill=_bill(pick.judge, spec, up),
    )


def _bill(judge: JudgeSpec, spec: TrainedSpec, up: Upstream) -> Bill:
    """Of the val split for each snapshot. How many there are is known of steps, and not of epochs over pairs
    that are not there yet; a KL budget may leave some unmade."""
    rows = up.row_count("val")
    if not isinstance(spec, OnPolicySpec):
        each = knows.bill(judge, up, rows=rows, share=1, split="val")
        calls = 0 if each.judge_calls == 0 else None
        text = f"for every snapshot {each.text}"
        return Bill(text, calls, models=each.models, unlimited=each.unlimited)
    count = None if rows is None else rows * spec.snapshots
    told = knows.bill(judge, up, rows=count, share=1, split="val")
    each_of = "each of " if rows is None else ""
    at_most = "at most " if spec.kl_budget is not None else ""
    many = f"{spec.snapshots} snapshot{'s' * (spec.snapshots > 1)}"
    return replace(told, text=f"for {each_of}{at_most}{many} {told.text}")


def by_step(spec: PickStep, inputs: Inputs, ctx: Context) -> None:
    """The policy after `spec.step` steps; where training ended before, as it was then."""
    found = snapshots(inputs["trained"])
    step = max((step for step in found if step <= spec.step), default=min(found))
    publish(found[step], ctx, {"by": "step", "step": step})


def by_reward(spec: ByReward, inputs: Inputs, ctx: Context) -> None:
    """The snapshot with the highest mean reward on val; the earliest among equals."""
    from alpacafarm.rollout.decode import answers

    rows = read_rows(inputs["rows"].path / "rows.jsonl", Example)
    scorer = ctx.scorer(inputs["reward"], vocabulary=ctx.vocabulary(inputs["trained"]))
    decoding = DecodeSpec(n=1, sampling=spec.pick.sampling, stream="pick", prompts=None)
    found = snapshots(inputs["trained"])
    values = {
        step: statistics.fmean(scorer.score(answers(decoding, policy, rows, ctx).tokens))
        for step, policy in found.items()
    }
    _publish_best(found, values, "reward", ctx)


def by_judge(spec: ByJudge, inputs: Inputs, ctx: Context) -> None:
    """The snapshot that wins most often on val, in percent of the SFT model's answers; the earliest among
    equals."""
    from alpacafarm.rollout.decode import answers

    rows = read_rows(inputs["rows"].path / "rows.jsonl", Example)
    judge = ctx.judge(spec.pick.judge, inputs)
    opponents = {o.id: o for o in read_outputs(inputs["opponents"].path / "outputs.json")}
    decoding = DecodeSpec(n=1, sampling=spec.pick.sampling, stream="pick", prompts=None)
    found, values = snapshots(inputs["trained"]), {}
    for step, policy in found.items():
        verdicts = judge.compare(paired(answers(decoding, policy, rows, ctx).outputs, opponents))
        ctx.spend(judge_calls=sum(v.calls for v in verdicts), price_usd=sum(v.price_usd for v in verdicts))
        values[step] = win_rate([verdict.preference for verdict in verdicts]).win_rate
    _publish_best(found, values, judge.name, ctx)


def paired(outputs: list[Output], opponents: Mapping[str, Output]) -> list[Pair]:
    return [Pair(o.id, o.instruction, o.input, opponents[o.id].output, o.output) for o in outputs]


def snapshots(trained: Artifact) -> dict[int, Artifact]:
    """The policies that a training published, by step, the earliest first; the last is the final one."""
    found = {int(path.name.removeprefix("step-")): path for path in trained.path.glob("snapshots/step-*")}
    last = int(trained.facts["steps"])
    return {
        **{
            step: Artifact(path, Kind.POLICY, f"{trained.key}-step-{step}", trained.facts)
            for step, path in sorted(found.items())
        },
        last: trained,
    }


def _publish_best(found: Mapping[int, Artifact], values: Mapping[int, float], by: str, ctx: Context) -> None:
    step = max(values, key=values.__getitem__)
    told = {"by": by, "split": "val", "step": step, "values": {str(k): v for k, v in values.items()}}
    publish(found[step], ctx, told)


def publish(chosen: Artifact, ctx: Context, told: Mapping[str, Any]) -> None:
    """`chosen` as the stage's policy, with what consumers must know of it."""
    if ctx.dist.rank == 0:
        inside = chosen.path / "model"
        link_tree(inside if inside.is_dir() else chosen.path, ctx.out / "model")
    ctx.record(picked=told, prompt_prefix=prompt_prefix(chosen))
