"""Who stands behind a judge's spec: here each kind gets what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from alpacafarm.ports import Artifact, Inputs, Judge
from alpacafarm.spec.judge import PoolJudge, RecordedJudge, RewardJudge, WorldJudge
from alpacafarm.stage import canonical_json
from alpacafarm.types import Example

if TYPE_CHECKING:
    from alpacafarm.pipeline.context import StageContext
    from alpacafarm.spec.judge import JudgeSpec


def judge_of(ctx: StageContext, spec: JudgeSpec, inputs: Inputs) -> Judge:
    from alpacafarm.judges.pool import AnnotatorPool
    from alpacafarm.judges.recorded import RecordedVerdicts
    from alpacafarm.judges.reward import RewardModelJudge
    from alpacafarm.judges.world import WorldAnnotators

    match spec:
        case WorldJudge():
            return WorldAnnotators(spec, ctx.seed)
        case RecordedJudge():
            return RecordedVerdicts(str(inputs["verdicts"].path))
        case RewardJudge():
            weights = inputs["reward"] if "reward" in inputs else inputs["judge"]
            return RewardModelJudge(text_scores(ctx, weights), soft=spec.soft, name=f"reward-{weights.key}")
        case PoolJudge():
            return AnnotatorPool(spec, members_of(ctx, spec, inputs), ctx.seed)
    raise AssertionError(f"no judge of kind {spec.kind}")


def members_of(ctx: StageContext, pool: PoolJudge, inputs: Inputs) -> dict[str, Judge]:
    """The judge behind each annotator. Those that read the same judge share it: a model is loaded once."""
    judges: dict[str, Judge] = {}
    members: dict[str, Judge] = {}
    for name, member in pool.members.items():
        place = f"members.{name}.judge."  # of its inputs, see judges.knows.judge_inputs
        own = {role.removeprefix(place): node for role, node in inputs.items() if role.startswith(place)}
        asked = canonical_json([member.judge.canonical(), sorted((role, a.key) for role, a in own.items())])
        if asked not in judges:
            judges[asked] = judge_of(ctx, member.judge, own)
        members[name] = judges[asked]
    return members


def text_scores(
    ctx: StageContext, weights: Artifact
) -> Callable[[Sequence[tuple[str, str, str]]], list[float]]:
    """Scores (instruction, input, output) with a reward model."""
    from alpacafarm.text.tokenise import encode_rows

    scorer, tokenizer = ctx.scorer(weights), ctx.tokenizer(weights)

    def scores(texts: Sequence[tuple[str, str, str]]) -> list[float]:
        rows = [Example("", instruction, given, output) for instruction, given, output in texts]
        return scorer.score(encode_rows(tokenizer, ctx.model.prompt, rows))

    return scores
