"""A judge of responses that are sampled while a policy is trained: what it needs, and its verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from alpacafarm.judges.knows import bill, check_judge, judge_inputs
from alpacafarm.ports import Dist, Judge, Upstream
from alpacafarm.spec.base import Problem
from alpacafarm.spec.judge import JudgeSpec, PoolJudge, RecordedJudge, parts, runs_a_model
from alpacafarm.stage import NOTHING_TO_PAY, Bill, Node
from alpacafarm.types import Pair, Verdict


def judge_problems(judge: JudgeSpec | None, *, asked: bool, key: str, otherwise: str) -> list[Problem]:
    """What speaks against `judge` where the key `key` asks one, or is `otherwise`."""
    if asked and judge is None:
        text = f".{key}=judge needs one; choose it with method/judge=world, or set .{key}={otherwise}"
        return [Problem("judge", None, text)]
    if not asked and judge is not None:
        text = f".{key}={otherwise} asks no judge; set .{key}=judge, or leave method/judge out"
        return [Problem("judge", judge.kind, text)]
    if judge is None:
        return []
    text = "a file cannot know responses that are yet to be sampled; set method/judge=world"
    problems = [
        Problem(f"judge.{key}kind", part.kind, text)
        for key, part in parts(judge)
        if isinstance(part, RecordedJudge)
    ]
    if isinstance(judge, PoolJudge) and runs_a_model(judge):
        text = (
            "its members must not run models on this machine: processes would ask a model for unequally many "
            "rows; leave members of kind reward and local out, or set method/judge=reward"
        )
        problems.append(Problem("judge.kind", judge.kind, text))
    return problems


def annotator(judge: JudgeSpec | None, comparisons: int, up: Upstream) -> tuple[dict[str, Node], Bill]:
    """What a stage takes in to score responses, and the bill: `method.judge`, or else the reward model.

    PlanError where the judge cannot know the instructions.
    """
    if judge is None:
        return {"reward": up.reward()}, NOTHING_TO_PAY
    check_judge(judge, "method", up)
    return judge_inputs(judge, "method", up), bill(judge, up, rows=comparisons, share=1, split="unlabeled")


def verdicts(judge: Judge, spec: JudgeSpec, pairs: Sequence[Pair]) -> list[Verdict]:
    """In the order of the pairs. Two equal texts are a tie that nobody is asked about.

    But for a model of this machine: it costs nothing, and where it is sharded every rank must bring equally
    many rows.
    """
    differ = [runs_a_model(spec) or pair.output_1 != pair.output_2 for pair in pairs]
    told = iter(judge.compare([pair for pair, asked in zip(pairs, differ, strict=True) if asked]))
    return [next(told) if asked else Verdict(1.5, "equal") for asked in differ]


def tally(found: Sequence[Verdict], dist: Dist) -> dict[str, float]:
    """What the verdicts of all ranks cost, and how many failed."""
    calls, price, failed = dist.total(
        [
            sum(verdict.calls for verdict in found),
            sum(verdict.price_usd for verdict in found),
            sum(verdict.preference is None for verdict in found),
        ]
    )
    return {"judge_calls": calls, "price_usd": price, "failed_verdicts": failed}


def added(state: Mapping[str, float], found: Mapping[str, float]) -> dict[str, float]:
    """Costs so far with those of another step."""
    return {name: state.get(name, 0.0) + value for name, value in found.items()}
