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


class FilesData(Strict):
    """The user's own files: JSON, JSON lines, Parquet, CSV, a folder that `datasets` reads, or a hub name.

    A single file of the hub is `hf://datasets/OWNER/NAME/FILE`.
    """

    kind: Literal["files"]
    pretrain: str | None  # default: the sft rows
    sft: str | None
    preference: str | None
    unlabeled: str | None
    val: str | None
    eval: str | None
    preferences: str | None  # judged pairs: what people said,
    simulated_preferences: str | None  # and what simulated annotators said
    thumbs: str | None  # single answers, each with a thumb up or down


DataSpec = Annotated[WorldData | FilesData, Field(discriminator="kind")]
