"""AlpacaEval's own files for its length-controlled win rate: difficulties of rows, weights of models."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alpacafarm.errors import SpecError

DIFFICULTY = "instruction_difficulty"
BIAS = "not_gamed_baseline.astype(float)"


@dataclass(frozen=True)
class Weights:
    bias: float
    difficulty: float


@dataclass(frozen=True)
class Published:
    """`difficulty` by the row's place in the evaluation set, which they are tied to."""

    difficulty: Sequence[float]
    source: Path
    weights: Mapping[str, Weights] = field(default_factory=dict)

    def difficulty_of(self, place: int) -> float:
        if place >= len(self.difficulty):
            raise SpecError(
                f"{self.source}: {len(self.difficulty)} difficulties, and there is a row {place + 1}; they "
                "belong to one evaluation set, so leave --difficulty out for another"
            )
        return self.difficulty[place]

    def win_rate(self, model: str, baseline: str) -> float | None:
        """In percent at equal lengths, over all rows; None where the weights do not know the model."""
        from alpacafarm.stats.length_control import published

        if model not in self.weights:
            return None
        own, other = self.weights[model], self.weights.get(baseline, Weights(0.0, 0.0))
        return published(own.bias - other.bias, own.difficulty - other.difficulty, self.difficulty)


def read_published(difficulty: Path, weights: Path | None) -> Published:
    return Published(_difficulties(difficulty), difficulty, _weights(weights) if weights else {})


def _difficulties(path: Path) -> list[float]:
    """A column of numbers, or `instruction_difficulty` of a table with the rows' index."""
    head, *lines = list(csv.reader(io.StringIO(_content(path)))) or [[]]
    try:
        if DIFFICULTY not in head:
            return [_number(line[-1]) for line in [head, *lines] if line]
        index, value = (head.index("index") if "index" in head else 0), head.index(DIFFICULTY)
        if index == value:
            return [_number(line[value]) for line in lines]
        by_place = {int(_number(line[index])): _number(line[value]) for line in lines}
        return [by_place[place] for place in range(len(lines))]
    except (ValueError, IndexError, KeyError) as error:
        raise SpecError(
            f"{path}: no table of difficulties ({type(error).__name__}: {error}); a number for each row is "
            f"required, or the columns index and {DIFFICULTY}"
        ) from None


def _weights(path: Path) -> dict[str, Weights]:
    """AlpacaEval's CSV, a line for each model, or the same as a JSON object."""
    content = _content(path)
    try:
        if path.suffix == ".json":
            table = json.loads(content)
        else:
            table = {line[""]: line for line in csv.DictReader(io.StringIO(content))}
        return {
            str(model): Weights(_number(line[BIAS]), _number(line[DIFFICULTY]))
            for model, line in table.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SpecError(
            f"{path}: no weights of models ({type(error).__name__}: {error}); a line for each model with "
            f"{DIFFICULTY} and {BIAS} is required"
        ) from None


def _number(told: Any) -> float:
    """ValueError for what is none, and for infinity and NaN."""
    number = float(told)
    if not math.isfinite(number):
        raise ValueError(f"{told} is no finite number")
    return number


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read ({error}); name a text file") from None
