"""`result.json` as a value, and its numbers as rows that the tables and plots share."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeVar

from alpacafarm.artifacts.manifest import to_json

T = TypeVar("T")
State = Literal["reused", "resumed", "made"]


@dataclass(frozen=True)
class Rate:
    """A win rate in percent, a tie counting one half; the error is None for a single instruction."""

    win_rate: float | None
    standard_error: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """The judge's verdicts on the policy's outputs against the reference outputs."""

    win_rate: float | None
    standard_error: float | None
    length_controlled_win_rate: float | None
    n_total: int  # with a verdict; failed judgements are in `Reading.n_failures`
    n_wins: int
    n_wins_base: int
    n_draws: int
    avg_length: float | None  # characters
    judge: str
    reference: str
    length_controlled_standard_error: float | None = None  # over instructions


@dataclass(frozen=True)
class Gold:
    """The embedded world's true preference, which no trained model sees."""

    win_rate: float | None
    standard_error: float | None
    score: float | None
    vs_sft: Rate | None = None
    null: Rate | None = None  # SFT redrawn against SFT: what a policy that learned nothing would get


@dataclass(frozen=True)
class StageLine:
    name: str
    key: str
    kind: str
    state: State
    seconds: float | None
    folder: str
    went_on: tuple[str, ...] = ()  # from what another number of ranks, or another ZeRO stage, had saved


@dataclass(frozen=True)
class Result:
    """The keys of `result.json`, in its order. What was not measured is None."""

    name: str
    method: str
    feedback: str | None
    model: str
    data: str
    seed: int
    kl_coef: float | None = None
    eval: Evaluation | None = None
    vs_sft: Rate | None = None
    gold: Gold | None = None
    reward_model_score: float | None = None  # mean over the evaluated outputs
    kl_to_sft: float | None = None  # nats per response, sampled
    stages: tuple[StageLine, ...] = ()
    outputs: str | None = None
    policy: str | None = None
    picked: Mapping[str, Any] | None = None  # of the snapshots of a training: by, step; split and values
    judge_calls: int = 0
    price_usd: float = 0.0
    seconds: float | None = None
    version: str = ""

    def to_json(self) -> str:
        """Every key, always. NaN and infinity, which JSON has not, become null."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Reads what `to_json` wrote. Unknown keys are passed over: a later version may have written them."""
        raw = json.loads(text, parse_constant=lambda _: None)
        if not isinstance(raw, dict):
            raise ValueError(
                f"result.json holds a {type(raw).__name__}; it must be an object with name, method, ..."
            )
        parts: dict[str, Any] = {
            "eval": _read(Evaluation, raw.get("eval"), "eval"),
            "vs_sft": _read(Rate, raw.get("vs_sft"), "vs_sft"),
            "gold": _read_gold(raw.get("gold")),
            "stages": tuple(map(_read_line, raw.get("stages") or ())),
        }
        result = _read(cls, {**raw, **parts}, "top level")
        assert result is not None
        return result


@dataclass(frozen=True)
class Reading:
    """How the numbers of a run came about, for the people who read them. Not part of `result.json`."""

    kl_estimator: str = "k1"  # of `kl_to_sft`, summed over the response
    fidelity: str | None = None  # method.fidelity: corrected or published
    n_failures: int | None = None  # comparisons without a verdict, left out of n_total
    standard_errors: Mapping[str, float] = field(default_factory=dict)  # by key of the result
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Column:
    """What numbers must share to stand in one column of a table."""

    label: str
    unit: str
    judge: str

    @property
    def head(self) -> tuple[str, str]:
        """What it is, and in what unit and by whom."""
        return self.label, f"{self.unit}, {self.judge}" if self.judge else self.unit

    @property
    def places(self) -> int:
        """Decimal places that are worth reading."""
        return 1 if self.unit in ("%", "characters") else 3


@dataclass(frozen=True)
class Measure:
    """One number with its error. `judge` is who gave the verdicts, empty where nobody was asked."""

    label: str
    value: float | None
    standard_error: float | None
    unit: str
    judge: str = ""

    @property
    def is_rate(self) -> bool:
        return self.unit == "%"

    @property
    def value_text(self) -> str:
        return number(self.value, self.column.places)

    @property
    def error_text(self) -> str:
        return number(self.standard_error, self.column.places)

    @property
    def column(self) -> Column:
        return Column(self.label, self.unit, self.judge)


def measures(result: Result, reading: Reading) -> list[Measure]:
    """Every number of the result table in its order, the absent ones with the value None."""
    judged, gold = result.eval, result.gold
    judge = judged.judge if judged else ""
    errors = reading.standard_errors
    return [
        _rate("win rate vs reference", judged, judge),
        Measure(
            "length-controlled win rate vs reference",
            judged.length_controlled_win_rate if judged else None,
            judged.length_controlled_standard_error if judged else None,
            "%",
            judge,
        ),
        _rate("win rate vs SFT", result.vs_sft, judge),
        _rate("gold vs reference", gold, "gold"),
        _rate("gold vs SFT", gold.vs_sft if gold else None, "gold"),
        _rate("null (SFT redrawn)", gold.null if gold else None, "gold"),
        Measure("gold score", gold.score if gold else None, errors.get("score"), "gold points", "gold"),
        Measure("proxy reward", result.reward_model_score, errors.get("reward_model_score"), "nats"),
        Measure(
            f"KL to SFT ({reading.kl_estimator})",
            result.kl_to_sft,
            errors.get("kl_to_sft"),
            "nats per response",
        ),
        Measure("length", judged.avg_length if judged else None, errors.get("avg_length"), "characters"),
    ]


def number(value: float | None, places: int) -> str:
    """The number to read, `-` where there is none."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.{places}f}"


def duration(seconds: float | None) -> str:
    """0.4 s, 12 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None or not math.isfinite(seconds):
        return "-"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _rate(label: str, rate: Rate | Evaluation | Gold | None, judge: str) -> Measure:
    return Measure(label, rate.win_rate if rate else None, rate.standard_error if rate else None, "%", judge)


def _read(kind: type[T], raw: Any, where: str) -> T | None:
    if raw is None:
        return None
    fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
    for name, field_ in fields.items():
        is_number = field_.type in ("int", "float", "float | None")
        if is_number and not isinstance(raw.get(name, 0), int | float | None):
            raise ValueError(f"result.json, {where}: {name}={raw[name]!r} is no number")
    try:
        return kind(**{name: raw[name] for name in fields if name in raw})
    except TypeError as error:
        raise ValueError(f"result.json, {where}: {error}; was it written by another program?") from error


def _read_line(raw: Any) -> StageLine | None:
    return _read(StageLine, {**raw, "went_on": tuple(raw.get("went_on") or ())}, "stages")


def _read_gold(raw: Any) -> Gold | None:
    if raw is None:
        return None
    rates = {role: _read(Rate, raw.get(role), f"gold.{role}") for role in ("vs_sft", "null")}
    return _read(Gold, {**raw, **rates}, "gold")
