"""What a judge must know before it is asked: the run's instructions, a file's verdicts, a model's weights."""

from pathlib import Path

from alpacafarm.data.plan import source_node
from alpacafarm.errors import PlanError
from alpacafarm.judges.cost import asked_bill
from alpacafarm.judges.pool import habits_of
from alpacafarm.judges.settle import asked, with_text
from alpacafarm.ports import Upstream
from alpacafarm.spec.judge import (
    AlpacaEvalJudge,
    ApiJudge,
    AskedJudge,
    JudgeSpec,
    LocalJudge,
    PoolJudge,
    RecordedJudge,
    RewardJudge,
    WorldJudge,
    parts,
)
from alpacafarm.stage import Bill, Node, in_usd
from alpacafarm.stats.habits import asked_share

THOUSAND = 1000


def check_judge(judge: JudgeSpec, group: str, up: Upstream) -> None:
    """PlanError when the judge of `group` cannot know the run's instructions, or has no prompt."""
    for key, part in parts(judge):
        if isinstance(part, ApiJudge | AlpacaEvalJudge):
            asked(part, f"{group}.judge.{key}".rstrip("."))
        if isinstance(part, LocalJudge):
            with_text(part, f"{group}.judge.{key}".rstrip("."))
        if isinstance(part, WorldJudge) and not up.has_gold:
            raise PlanError(
                f"{group}.judge.{key}kind=world: the world's annotators only know the instructions of "
                f"data=world, and this run has others; set {group}/judge=reward or {group}/judge=recorded, "
                "or data=world"
            )


def bill(judge: JudgeSpec, up: Upstream, *, rows: int | None, share: float, split: str) -> Bill:
    """What judging `share` of the rows will cost. All judges but those behind an API are free of charge."""
    if isinstance(judge, PoolJudge):
        return pool_bill(judge, up, rows=rows, share=share, split=split)
    if isinstance(judge, ApiJudge | AlpacaEvalJudge):
        judge = asked(judge)
    if isinstance(judge, AskedJudge):
        return asked_bill(judge, up, rows=rows, share=share)
    if not isinstance(judge, WorldJudge):
        return Bill(f"no judge calls ({judge.kind}), 0 USD")
    if rows is None:
        return Bill(f"{share:.0%} of the {split} rows judge calls, 0 USD", judge_calls=None)
    calls = round(rows * share)
    return Bill(f"about {calls:,} judge calls, 0 USD", calls)


def pool_bill(pool: PoolJudge, up: Upstream, *, rows: int | None, share: float, split: str) -> Bill:
    """Of all members, each with its share of the pairs but for those that it abstains from or ties unseen.

    Members are billed for a thousand times the rows, so that what each rounds does not add up to calls.
    """
    total = sum(member.weight for member in pool.members.values())
    bills = [
        bill(
            member.judge,
            up,
            rows=None if rows is None else rows * THOUSAND,
            share=share * member.weight / total * asked_share(habits_of(member.noise)),
            split=split,
        )
        for member in pool.members.values()
    ]
    price_usd = sum(one.price_usd for one in bills)
    models = tuple(dict.fromkeys(model for one in bills for model in one.models))
    unlimited = tuple(dict.fromkeys(model for one in bills for model in one.unlimited))
    if rows is None or any(one.judge_calls is None for one in bills):
        whom = f"{len(bills)} annotators" if len(bills) > 1 else "an annotator"
        told = f"{share:.0%} of the {split} rows judge calls of {whom}"
        return Bill(told, None, price_usd, models=models, unlimited=unlimited)
    calls = round(sum(one.judge_calls or 0 for one in bills) / THOUSAND)
    price_usd /= THOUSAND
    return Bill(
        f"about {calls:,} judge calls, {in_usd(price_usd)}",
        calls,
        price_usd,
        tokens_in=round(sum(one.tokens_in for one in bills) / THOUSAND),
        tokens_out=round(sum(one.tokens_out for one in bills) / THOUSAND),
        models=models,
        unlimited=unlimited,
    )


def judge_inputs(judge: JudgeSpec, group: str, up: Upstream) -> dict[str, Node]:
    """What a stage takes in to ask the judge of `group`: models, files, or nothing."""
    inputs: dict[str, Node] = {}
    for key, part in parts(judge):
        where = f"{group}.judge.{key}"
        if isinstance(part, RewardJudge):
            inputs[f"{key}judge"] = up.reward()
        elif isinstance(part, LocalJudge):
            inputs[f"{key}judge"] = up.model(f"{where}path", part.path, part.revision)
        elif isinstance(part, RecordedJudge):
            inputs[f"{key}verdicts"] = recorded_file(f"{where}path", part.path)
    return inputs


def recorded_file(key: str, path: str) -> Node:
    """A recorded judge's file by its content: other verdicts are another stage.

    PlanError where there is no such file, before anything is trained.
    """
    if not Path(path).expanduser().is_file():
        raise PlanError(f"{key}={path}: there is no such file; set it to a file of judged pairs")
    return source_node(key, path)
