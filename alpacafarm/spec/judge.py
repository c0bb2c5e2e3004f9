"""`judge` of feedback, evaluation and methods, and of `method.pick`: who compares two answers."""

from typing import Annotated, Literal

from pydantic import Field

from alpacafarm.spec.base import Strict


class WorldJudge(Strict):
    """The embedded world's annotators: noisy, biased views of its true preference."""

    kind: Literal["world"]
    pool: Literal["sim", "human", "eval"]
    pool_seed: int = Field(ge=0)  # who the annotators are; the run's seed only says which of them reads what


class RewardJudge(Strict):
    """The run's reward model as judge: the higher score is preferred, or its probability when `soft`."""

    kind: Literal["reward"]
    soft: bool


class RecordedJudge(Strict):
    """Verdicts read back from a file of judged pairs, found by their texts in either order."""

    kind: Literal["recorded"]
    path: str


JudgeSpec = Annotated[WorldJudge | RewardJudge | RecordedJudge, Field(discriminator="kind")]
