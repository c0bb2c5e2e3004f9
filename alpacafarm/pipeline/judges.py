"""Who stands behind a judge's spec: here each kind gets what it needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from alpacafarm.errors import JudgeError
from alpacafarm.ports import Artifact, Inputs, Judge
from alpacafarm.spec.judge import (
    AlpacaEvalJudge,
    ApiJudge,
    AskedJudge,
    LocalJudge,
    PoolJudge,
    RecordedJudge,
    RewardJudge,
    WorldJudge,
)
from alpacafarm.stage import canonical_json
from alpacafarm.types import Example

if TYPE_CHECKING:
    from alpacafarm.judges.local import LabelLogprobs, Messages
    from alpacafarm.pipeline.context import StageContext
    from alpacafarm.spec.judge import JudgeSpec
    from alpacafarm.text.tokenise import Ids

CHUNK = 512  # conversations that are held as tokens at once


def judge_of(ctx: StageContext, spec: JudgeSpec, inputs: Inputs) -> Judge:
    from alpacafarm.judges.asked import AskedModel, reader
    from alpacafarm.judges.local import LocalModelJudge
    from alpacafarm.judges.pool import AnnotatorPool
    from alpacafarm.judges.recorded import RecordedVerdicts
    from alpacafarm.judges.reward import RewardModelJudge
    from alpacafarm.judges.settle import asked, with_text
    from alpacafarm.judges.template import Template
    from alpacafarm.judges.world import WorldAnnotators

    match spec:
        case WorldJudge():
            return WorldAnnotators(spec, ctx.seed)
        case RecordedJudge():
            return RecordedVerdicts(str(inputs["verdicts"].path))
        case RewardJudge():
            weights = inputs["reward"] if "reward" in inputs else inputs["judge"]
            return RewardModelJudge(text_scores(ctx, weights), soft=spec.soft, name=f"reward-{weights.key}")
        case LocalJudge():
            weights = inputs["judge"]
            return LocalModelJudge(
                Template(with_text(spec).prompt),
                label_logprobs(ctx, weights),
                both_orders=spec.both_orders,
                seed=ctx.seed,
                name=f"local-{weights.key}",
            )
        case PoolJudge():
            return AnnotatorPool(spec, members_of(ctx, spec, inputs), ctx.seed)
        case ApiJudge() | AlpacaEvalJudge():  # from outside of a plan, which settles what is asked
            return judge_of(ctx, asked(spec), inputs)
        case AskedJudge():
            return AskedModel(spec, ctx.asker(spec.name), reader(spec.reading))


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


def label_logprobs(ctx: StageContext, weights: Artifact) -> LabelLogprobs:
    """What a causal model says of labels as the beginning of its answer, see `alpacafarm.judges.local`."""
    from alpacafarm.text.chat import encode_conversation
    from alpacafarm.text.collate import Tokens
    from alpacafarm.text.tokenise import plain_ids

    engine, tokenizer, positions = ctx.frozen(weights), ctx.tokenizer(weights), ctx.positions(weights)

    def of_some(conversations: Sequence[Messages], ends: Sequence[Ids]) -> list[Sequence[float] | None]:
        prompts = [encode_conversation(tokenizer, messages) for messages in conversations]
        room = None if positions is None else positions - max(map(len, ends))
        fits = [room is None or len(prompt) <= room for prompt in prompts]
        # One that is too long is cut and its answer dropped: every process brings as many rows as the others.
        rows = [Tokens(prompt[:room], end) for prompt in prompts for end in ends]
        told = ctx.logprobs(engine, rows, 1.0).sum(1).tolist()
        return [told[i * len(ends) : (i + 1) * len(ends)] if fit else None for i, fit in enumerate(fits)]

    def found(conversations: Sequence[Messages], labels: Sequence[str]) -> list[Sequence[float] | None]:
        ends = plain_ids(tokenizer, labels)
        if len(set(ends)) < len(labels) or not all(ends):
            raise JudgeError(
                f"judge.path={weights.path}: its tokenizer does not tell {' from '.join(labels)}, the labels "
                "of the answers; set judge.path to another model"
            )
        return [
            one
            for start in range(0, len(conversations), CHUNK)
            for one in of_some(conversations[start : start + CHUNK], ends)
        ]

    return found
