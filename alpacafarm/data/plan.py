"""Splits as stages. Each split is its own artifact: other evaluation data does not train anything anew."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

from alpacafarm import lookup
from alpacafarm.artifacts.fingerprint import fingerprint, is_hub_id
from alpacafarm.errors import ArtifactError, PlanError
from alpacafarm.ports import Upstream
from alpacafarm.spec.base import Strict
from alpacafarm.spec.data import Bounds, Expect, FilesData, WorldData
from alpacafarm.stage import Given, Kind, Node, Stage

# The path that `huggingface_hub` takes, with an optional @revision behind the name.
HUB_FILE = re.compile(r"hf://datasets/[\w.-]+/[\w.-]+(@[\w.-]+)?/.+\.(json|jsonl|parquet)")


class WorldRows(Strict):
    """Rows of one split of the embedded world."""

    split: str
    rows: int
    seed: int


class FileRows(Strict):
    """Rows of one of the user's files. The file itself is an input, by its content."""

    split: str
    shape: Literal["examples", "preferences", "thumbs"]


class CheckedRows(FileRows):
    """A file that must be the one that is meant. Other splits' files are inputs by their splits' names.

    `shared`: the largest fraction of rows that another split may have too.
    """

    rows: Bounds | None
    shared: float


def rows(up: Upstream, data: WorldData | FilesData, split: str) -> Stage:
    """The stage that makes a split. PlanError when the user gave no file for it."""
    if isinstance(data, WorldData):
        spec = WorldRows(split=split, rows=getattr(data, split), seed=data.seed)
        made = _rows_stage(up, split, "alpacafarm.data.world:make", spec, {})
        # 2: the rows of these splits have answers
        return replace(made, version=2) if split in ("preference", "unlabeled") else made
    key = "sft" if split == "pretrain" and data.pretrain is None else split
    location = getattr(data, key)
    if location is None and split == "preference":
        raise PlanError(
            "data.preference=null: simulated feedback answers the instructions of this split; set it to a "
            "file of them, or use judged pairs: feedback=human and data.preferences=FILE, or given.pairs=FILE"
        )
    if location is None:
        raise PlanError(
            f"data.{key}=null: the plan needs the {key} split; set data.{key} to a JSON, JSON lines, "
            "Parquet or CSV file with instruction, input and output"
        )
    source = {"file": source_node(f"data.{key}", location)}
    run, file_rows = "alpacafarm.data.files:read", FileRows(split=split, shape="examples")
    if data.expect is not None:
        run, file_rows, others = _checked(file_rows, data, data.expect)
        source |= others
    # 2: a row without an output is refused, and a CSV file's cells are text
    return replace(_rows_stage(up, split, run, file_rows, source), version=2)


def _checked(rows: FileRows, data: FilesData, expect: Expect) -> tuple[str, CheckedRows, dict[str, Given]]:
    """The stage's function, its parameters and its further inputs. Splits of one file are not compared."""
    others: dict[str, Given] = {}
    own = getattr(data, rows.split)
    for split in expect.disjoint if rows.split in expect.disjoint else ():
        location = getattr(data, split)
        if location not in (None, own):
            others[split] = source_node(f"data.{split}", location)
    bounds = expect.bounds(rows.split)
    checked = CheckedRows(
        split=rows.split, shape=rows.shape, rows=list(bounds) if bounds else None, shared=expect.shared
    )
    return "alpacafarm.data.checked:read", checked, others


def pairs_from_file(up: Upstream, key: str, location: str) -> Node:
    """The user's own preferences as a PAIRS artifact."""
    location = place_of(up, key, location)
    if (Path(location).expanduser() / "pairs.jsonl").is_file():
        return source_node(key, location, Kind.PAIRS)
    run, rows = "alpacafarm.data.files:read", FileRows(split="preferences", shape="preferences")
    bounds = up.expected_rows(key.removeprefix("data."))
    if bounds is not None:
        run = "alpacafarm.data.checked:read"
        rows = CheckedRows(
            split=key.removeprefix("data."), shape="preferences", rows=list(bounds), shared=0.0
        )
    return up.stage(
        "pairs",
        run,
        rows,
        makes=Kind.PAIRS,
        inputs={"file": source_node(key, location)},
        uses_model=False,
    )


def place_of(up: Upstream, key: str, location: str) -> str:
    """Where pairs lie that are named by their place, or as the data set calls them."""
    if is_place(location) or not up.released:
        return location
    if location not in up.released:
        raise PlanError(
            f"{key}={location}: there is no such file, and the data set has no judged pairs of that name; "
            f"{lookup.choices(location, up.released)}; or set {key} to a file of them"
        )
    return up.released[location]


def is_place(location: str) -> bool:
    """Something on this machine, or a name that only the hub can know."""
    path = Path(location).expanduser()
    return path.exists() or is_hub_file(location) or (not path.suffix and is_hub_id(location))


def thumbs(up: Upstream, location: str) -> Stage:
    """The user's own answers with thumbs, as rows."""
    source = {"file": source_node("data.thumbs", location)}
    file_rows = FileRows(split="thumbs", shape="thumbs")
    return _rows_stage(up, "thumbs", "alpacafarm.data.files:read", file_rows, source)


def source_node(key: str, location: str, kind: Kind = Kind.ROWS) -> Given:
    """A file or folder by its content; a hub name, or a single file of the hub, by its name."""
    path = Path(location).expanduser()
    if path.exists():
        try:
            return Given(kind, str(path.resolve()), fingerprint(path.resolve()))
        except (ArtifactError, OSError) as error:
            raise PlanError(f"{key}={location}: cannot be read: {error}; set {key} to another") from None
    if not is_place(location):
        raise PlanError(
            f"{key}={location}: there is no such file; "
            f"set {key} to a JSON, JSON lines, Parquet or CSV file, to a hub dataset (owner/name) or to "
            "hf://datasets/OWNER/NAME/FILE with a JSON, JSON lines or Parquet file of one"
        )
    return Given(kind, location, f"hub:{location}")


def is_hub_file(location: str) -> bool:
    return HUB_FILE.fullmatch(location) is not None


def _rows_stage(up: Upstream, split: str, run: str, spec: Strict, inputs: dict[str, Given]) -> Stage:
    # Whatever the run's seed: a data set does not change between repetitions of an experiment.
    stage = up.stage(f"rows {split}", run, spec, makes=Kind.ROWS, inputs=inputs, uses_model=False)
    return replace(stage, seed=0)
