"""Which judge knows which data."""

from alpacafarm.errors import PlanError
from alpacafarm.ports import Upstream
from alpacafarm.spec.judge import JudgeSpec, WorldJudge


def check_judge(judge: JudgeSpec, group: str, up: Upstream) -> None:
    """PlanError when the judge of `group` cannot know the run's instructions."""
    if isinstance(judge, WorldJudge) and not up.has_gold:
        raise PlanError(
            f"{group}.judge.kind=world: the world's annotators only know the instructions of data=world, "
            f"and this run has others; set {group}/judge=reward or {group}/judge=recorded, or data=world"
        )
