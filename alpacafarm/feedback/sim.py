"""Simulated feedback: two samples of the SFT model for each instruction, judged by simulated annotators with
noise (Dubois et al. 2023, section 3: p_sim^ann)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from pydantic import Field

from alpacafarm.data import plan as data_plan
from alpacafarm.data.annotations import failure_counts
from alpacafarm.data.rows import read_outputs, write_rows
from alpacafarm.errors import JudgeError
from alpacafarm.judges.knows import bill, check_judge, judge_inputs
from alpacafarm.ports import Context, Inputs, Upstream
from alpacafarm.rollout.decode import DecodeSpec
from alpacafarm.spec.feedback import FeedbackSpec
from alpacafarm.spec.judge import JudgeSpec, runs_a_model
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Kind, Node, Stage
from alpacafarm.stats.noise import flips
from alpacafarm.stats.pairs import pair_samples
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Output, Pair, Preference, Unjudged, Verdict


class SampleSpec(FeedbackSpec):
    """What is compared."""

    samples: int = Field(ge=2)  # of each instruction; two of them are compared
    sampling: Sampling


class AnnotateSpec(SampleSpec):
    """`flip_probability` p: with probability 2p a pair gets a fair coin and is never sent to the judge."""

    flip_probability: float = Field(ge=0, le=0.5)
    judge: JudgeSpec


class Spec(AnnotateSpec):
    """`preferences` names pairs that are judged already, and are used instead. No coin replaces their labels:
    of them `flip_probability` is what a correcting loss is told."""

    preferences: str | None


def plan(spec: Spec, up: Upstream) -> Node:
    if spec.preferences:
        return data_plan.pairs_from_file(up, "data.simulated_preferences", spec.preferences)
    return annotated(spec, up)


def sampled(spec: SampleSpec, up: Upstream) -> Stage:
    """Answers of the SFT model to the instructions of the `preference` split."""
    return up.stage(
        "sample pairs",
        "alpacafarm.rollout.decode:decode",
        DecodeSpec(n=spec.samples, sampling=spec.sampling, stream="pairs", prompts=None),
        makes=Kind.OUTPUTS,
        inputs={"policy": up.sft(), "rows": up.rows("preference")},
    )


def annotated(spec: AnnotateSpec, up: Upstream) -> Stage:
    """The pairs of two samples of the SFT model for each instruction, judged."""
    check_judge(spec.judge, "feedback", up)
    return up.stage(
        "annotate",
        "alpacafarm.feedback.sim:annotate",
        AnnotateSpec.model_validate(spec.canonical(exclude={"preferences"})),
        makes=Kind.PAIRS,
        inputs={"samples": sampled(spec, up), **judge_inputs(spec.judge, "feedback", up)},
        uses_model=runs_a_model(spec.judge),
        bill=bill(
            spec.judge,
            up,
            rows=up.row_count("preference"),
            share=1 - 2 * spec.flip_probability,
            split="preference",
        ),
    )


def annotate(spec: AnnotateSpec, inputs: Inputs, ctx: Context) -> None:
    """Writes `pairs.jsonl`. Equal samples of an instruction give no pair, nor do failed verdicts; both are
    counted, and the latter are in `failures.jsonl`."""
    outputs = read_outputs(inputs["samples"].path / "outputs.json")
    pairs = comparable(outputs, ctx.seed)
    fates = flips([pair.id for pair in pairs], spec.flip_probability, ctx.seed)
    asked = [pair for pair, fate in zip(pairs, fates, strict=True) if fate.is_judged]
    judge = ctx.judge(spec.judge, inputs)
    verdicts = dict(zip((pair.id for pair in asked), judge.compare(asked), strict=True))
    _check_any(verdicts.values(), judge.name)
    rows, failed = [], []
    for pair, fate in zip(pairs, fates, strict=True):
        preference = fate.coin if fate.coin is not None else verdicts[pair.id].preference
        if preference is None:
            failed.append(Unjudged(**asdict(pair), failure=verdicts[pair.id].failure or "no verdict"))
            continue
        annotator = "coin" if fate.coin is not None else verdicts[pair.id].annotator
        rows.append(Preference(**asdict(pair), preference=preference, annotator=annotator))
    if ctx.dist.rank == 0:
        write_rows(ctx.out / "pairs.jsonl", rows)
        write_rows(ctx.out / "failures.jsonl", failed)
    ctx.spend(
        judge_calls=sum(v.calls for v in verdicts.values()),
        price_usd=sum(v.price_usd for v in verdicts.values()),
    )
    ctx.record(
        pairs=len(rows),
        coins=len(pairs) - len(asked),
        failed=len(failed),
        failures=failure_counts(pair.failure for pair in failed),
        contradictions=sum(verdict.contradicted for verdict in verdicts.values()),
        without_a_pair=len({output.id for output in outputs}) - len(pairs),
        judge=judge.name,
    )


def _check_any(verdicts: Collection[Verdict], judge: str) -> None:
    """JudgeError where a judge failed on all that it was asked about: there is nothing to learn from."""
    if verdicts and all(verdict.preference is None for verdict in verdicts):
        first = next(iter(verdicts)).failure or "no reason given"
        raise JudgeError(
            f"the judge {judge} gave no verdict on any of {len(verdicts)} pairs, the first time because "
            f"{first}; choose another feedback/judge, or another model or prompt for it"
        )


def comparable(outputs: list[Output], seed: int) -> list[Pair]:
    """One pair of differing samples for each instruction that has one."""
    groups: dict[str, list[Output]] = {}
    for output in outputs:
        groups.setdefault(output.id, []).append(output)
    pairs = []
    for row_id, group in groups.items():
        chosen = pair_samples([output.output for output in group], stable_seed(seed, "pair", row_id))
        if chosen is not None:
            first, second = (group[i] for i in chosen)
            pairs.append(Pair(row_id, first.instruction, first.input, first.output, second.output))
    return pairs
