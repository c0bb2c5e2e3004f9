"""`ensemble.json`: how the reward models in an artifact's `members/` give one score.

It is a file among the artifact's own, and not only a fact of its manifest, because it is content: the same
members combined in another way are another reward model, also where the folder is given to a run.
"""

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field, ValidationError

from alpacafarm.artifacts.files import write_aside
from alpacafarm.errors import ArtifactError
from alpacafarm.spec.base import Strict
from alpacafarm.stats.ensemble import Combine, combined

NAME = "ensemble.json"


class Ensemble(Strict):
    """`shifts[m]` is added to the raw scores of `members/<m>` before they are combined."""

    combine: Combine
    std_coef: float | None
    shifts: list[float] = Field(min_length=2)

    def __call__(self, scores: Sequence[Sequence[float]]) -> list[float]:
        """The score of each response from each member's raw ones."""
        aligned = [
            [score + shift for score in of_member]
            for of_member, shift in zip(scores, self.shifts, strict=True)
        ]
        return combined(aligned, combine=self.combine, std_coef=self.std_coef)

    def write(self, folder: Path) -> None:
        write_aside(folder / NAME, self.model_dump_json(indent=1) + "\n")


def read(folder: Path) -> Ensemble | None:
    """None where the folder holds a single reward model."""
    path = folder / NAME
    if not path.is_file():
        return None
    try:
        return Ensemble.model_validate_json(path.read_text(encoding="utf-8"))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}".strip() for e in error.errors())
        raise ArtifactError(f"{path} cannot be read: {problems}; make the ensemble again") from error


def member(folder: Path, number: int) -> Path:
    """Where the Hugging Face folder of a member lies."""
    return folder / "members" / str(number)
