"""What a judge must know before it is asked: the run's instructions, or the verdicts of a file."""

from pathlib import Path

from alpacafarm.data.plan import source_node
from alpacafarm.errors import PlanError
from alpacafarm.ports import Upstream
from alpacafarm.spec.judge import JudgeSpec, RecordedJudge, RewardJudge, WorldJudge
from alpacafarm.stage import Bill, Node


def check_judge(judge: JudgeSpec, group: str, up: Upstream) -> None:
    """PlanError when the judge of `group` cannot know the run's instructions."""
    if isinstance(judge, WorldJudge) and not up.has_gold:
        raise PlanError(
            f"{group}.judge.kind=world: the world's annotators only know the instructions of data=world, "
            f"and this run has others; set {group}/judge=reward or {group}/judge=recorded, or data=world"
        )


def bill(rows: int | None, share: float, judge: JudgeSpec, split: str) -> Bill:
    """What judging `share` of the rows will cost. The judges that there are so far are all free of charge."""
    if not isinstance(judge, WorldJudge):
        return Bill(f"no judge calls ({judge.kind}), 0 USD")
    if rows is None:
        return Bill(f"{share:.0%} of the {split} rows judge calls, 0 USD", judge_calls=None)
    calls = round(rows * share)
    return Bill(f"about {calls:,} judge calls, 0 USD", calls)


def judge_inputs(judge: JudgeSpec, group: str, up: Upstream) -> dict[str, Node]:
    """What a stage takes in to ask the judge of `group`: a reward model, a file, or nothing."""
    return {"judge": up.reward()} if isinstance(judge, RewardJudge) else recorded_file(judge, group)


def recorded_file(judge: JudgeSpec, group: str) -> dict[str, Node]:
    """A recorded judge's file as the input `verdicts`, by its content: other verdicts are another stage.

    Nothing for other judges. PlanError where there is no such file, before anything is trained.
    """
    if not isinstance(judge, RecordedJudge):
        return {}
    if not Path(judge.path).expanduser().is_file():
        raise PlanError(
            f"{group}.judge.path={judge.path}: there is no such file; set it to a file of judged pairs"
        )
    return {"verdicts": source_node(f"{group}.judge.path", judge.path)}
