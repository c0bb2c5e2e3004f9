"""What the leaderboard is made from: files of annotations, folders of them, and run folders."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from alpacafarm.data.annotations import NAMES, Annotation, read_annotations
from alpacafarm.errors import SpecError
from alpacafarm.report import folder as run_folder
from alpacafarm.stage import Kind


@dataclass(frozen=True)
class Source:
    """`name` is the model's where its rows do not name it; `is_run`, where that is what people know it by."""

    label: str
    name: str
    rows: Sequence[Annotation]
    is_run: bool = False


def sources(places: Sequence[Path]) -> list[Source]:
    """SpecError names the place that holds no annotations, or the row that is none."""
    return [source for place in places for source in _below(place)]


def _below(place: Path) -> Iterator[Source]:
    if place.is_file():
        yield Source(str(place), _name(place), read_annotations(place))
        return
    if not place.is_dir():
        raise SpecError(f"{place}: there is no such file or folder; name annotations or run folders")
    runs = run_folder.find([place])
    if runs:
        yield from map(_run, runs)
        return
    found = sorted(path for name in NAMES for path in place.rglob(name))
    if not found:
        raise SpecError(
            f"{place}: no run and no {NAMES[0]} below; name a run's folder, or files of annotations"
        )
    for path in found:
        yield Source(str(path), _name(path), read_annotations(path))


def _name(path: Path) -> str:
    """The file's name without its endings; AlpacaEval names a folder after the model, not the file."""
    stem = path.name.lower().removesuffix(".gz")
    stem = path.name[: len(stem.removesuffix(Path(stem).suffix))]
    if stem != "annotations":
        return stem
    judge_folder = path.resolve().parent  # results/MODEL/JUDGE/annotations.json
    return f"{judge_folder.parent.name}/{judge_folder.name}"


def _run(path: Path) -> Source:
    """A finished run's verdicts, under the run's name."""
    try:
        result = run_folder.read(path).result
    except ValueError as error:
        raise SpecError(str(error)) from None
    if result is None:
        raise SpecError(f"{path}: this run has no result yet; let it end, or leave it out")
    scores = [Path(stage.folder) for stage in result.stages if stage.kind == Kind.SCORES]
    if not scores:
        raise SpecError(f"{path}: this run made no evaluation; run it with eval=winrate, or leave it out")
    annotations = scores[-1] / NAMES[0]
    if not annotations.is_file():
        raise SpecError(
            f"{path}: its verdicts are not at {annotations}; run it again with the same command, which makes "
            "what is missing"
        )
    return Source(str(path), result.name, read_annotations(annotations), is_run=True)
