"""`data`: the splits of AlpacaFarm (sft, preference, unlabeled, val, eval) and where their rows come from."""

from typing import Annotated, Literal

from pydantic import Field

from alpacafarm.spec.base import Strict

Split = Literal["pretrain", "sft", "preference", "unlabeled", "val", "eval"]
SPLITS: tuple[Split, ...] = ("pretrain", "sft", "preference", "unlabeled", "val", "eval")


class WorldData(Strict):
    """The embedded world: instructions made from a seed. Sizes are rows."""

    kind: Literal["world"]
    seed: int = Field(ge=0)
    pretrain: int = Field(ge=1)
    sft: int = Field(ge=1)
    preference: int = Field(ge=1)
    unlabeled: int = Field(ge=1)
    val: int = Field(ge=1)
    eval: int = Field(ge=1, le=805)


Rows = Annotated[int, Field(ge=1)]
Bounds = Annotated[list[Rows], Field(min_length=2, max_length=2)]  # the least and the most


class Expect(Strict):
    """What tells a file from another one that was put in its place.

    `rows` of a split or of judged pairs: a number, or the least and the most. Of the splits in `disjoint`, no
    two share more than the fraction `shared` of the smaller one's rows (equal instruction and input).
    """

    rows: dict[Split | Literal["preferences", "simulated_preferences"], Rows | Bounds]
    disjoint: list[Split]
    shared: float = Field(ge=0, le=1)

    def bounds(self, split: str) -> tuple[int, int] | None:
        """The least and the most rows; None where any number is right."""
        told = {str(name): rows for name, rows in self.rows.items()}.get(split)
        if isinstance(told, int):
            return told, told
        return (told[0], told[1]) if told else None


class FilesData(Strict):
    """The user's own files: JSON, JSON lines, Parquet, CSV, a folder that `datasets` reads, or a hub name.

    A single file of the hub is `hf://datasets/OWNER/NAME/FILE`.
    """

    kind: Literal["files"]
    folder: str | None  # that the others are named by, in YAML
    pretrain: str | None  # default: the sft rows
    sft: str | None
    preference: str | None
    unlabeled: str | None
    val: str | None
    eval: str | None
    preferences: str | None  # judged pairs, also by a name in `released`: what people said,
    simulated_preferences: str | None  # and what simulated annotators said
    thumbs: str | None  # single answers, each with a thumb up or down
    released: dict[str, str] = Field(default_factory=dict)  # judged pairs of the data set: by name, where
    expect: Expect | None


DataSpec = Annotated[WorldData | FilesData, Field(discriminator="kind")]
