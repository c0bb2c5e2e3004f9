"""Plots as inline SVG: learning curves, win rates with their errors, over-optimisation.

The same numbers give the same bytes. Text takes the page's colour and series take CSS variables, so that one
drawing serves a light and a dark page.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from typing import TYPE_CHECKING, Any

from alpacafarm.report.result import Measure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, told apart also without red or green; the page may redefine the variables.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
LINES = ("-", "--", ":", "-.")
INK = "#010203"  # stands for the page's own text colour
FAINT = "#040506"  # the same, at a quarter of its strength

# A panel of the learning curves: title, unit of the y axis, the metrics drawn in it.
Panel = tuple[str, str, tuple[str, ...]]
PANELS: tuple[Panel, ...] = (
    ("Loss", "mean per token or pair", ("loss", "loss/policy", "loss/value")),
    ("Reward", "reward model score (nats)", ("reward/mean",)),
    ("KL to reference", "nats per response", ("kl", "kl/k3")),
    ("Response length", "tokens", ("response_tokens/mean",)),
    ("Entropy", "nats per token", ("entropy",)),
    ("Responses that end", "share of responses", ("eos_rate",)),
    ("Accuracy", "share of pairs", ("accuracy",)),
    ("Margin", "nats", ("margin",)),
    (
        "Log-ratio to reference",
        "nats per response",
        ("logratio/chosen", "logratio/rejected", "logratio/desirable", "logratio/undesirable"),
    ),
    ("Log-probability", "nats per response", ("logprob/chosen", "logprob/rejected")),
    ("Gradient norm", "norm before clipping", ("grad_norm",)),
    ("Learning rate", "step size", ("lr",)),
)
LEGENDS = {"kl": "k1", "kl/k3": "k3"}  # estimators of one quantity


@dataclass(frozen=True)
class RunPoint:
    """One reading of one run, for the over-optimisation plot. Win rates in percent."""

    run: str
    x: float
    gold: float | None
    judge: float | None
    gold_error: float | None = None
    judge_error: float | None = None


@dataclass(frozen=True)
class Labelled:
    """A point with its name and the errors of both its numbers."""

    label: str
    x: float
    y: float
    x_error: float = 0.0
    y_error: float = 0.0


def curves(
    log: Sequence[Mapping[str, float]], names: Sequence[str] | None = None, title: str = "Training"
) -> str:
    """One small panel for each quantity that was logged, over optimiser steps; empty where none was.

    `names` keeps only these metrics; one that no panel knows gets a panel of its own.
    """
    return _drawn_curves(
        json.dumps([dict(row) for row in log]), None if names is None else tuple(names), title
    )


@lru_cache(maxsize=64)  # the reports of a suite's runs share their first stages, and drawing takes long
def _drawn_curves(log_json: str, names: tuple[str, ...] | None, title: str) -> str:
    log: list[dict[str, float]] = json.loads(log_json)
    panels = _panels(log, names)
    if not panels:
        return ""
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    with _figure(2.55 * columns + 0.1, 1.95 * rows) as figure:
        grid = figure.subplots(rows, columns, squeeze=False)
        for axes, (label, unit, metrics) in zip(grid.flat, panels, strict=False):
            _curve(axes, log, metrics)
            axes.set_title(label, fontsize=9, loc="left", color=INK)
            axes.set_ylabel(unit)
            axes.set_xlabel("step")
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_visible(False)
        return _svg(figure, title)


def intervals(rows: Sequence[Measure], title: str = "Win rates") -> str:
    """Win rates as points with bars of one standard error, thin to two; other rows are passed over."""
    rates = [row for row in rows if row.is_rate and row.value is not None]
    if not rates:
        return ""
    with _figure(8.4, 0.75 + 0.28 * len(rates)) as figure:
        axes = figure.subplots()
        axes.axvline(50, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        for place, row in enumerate(rates):
            assert row.value is not None
            colour = COLOURS[2] if row.judge == "gold" else COLOURS[0]
            error = row.standard_error or 0.0
            axes.errorbar(row.value, place, xerr=2 * error, color=colour, linewidth=1, fmt="none")
            marker = "D" if row.judge == "gold" else "o"
            axes.errorbar(row.value, place, xerr=error, color=colour, linewidth=3, fmt=marker, markersize=6)
        axes.set_yticks(range(len(rates)), [f"{row.label} [{row.judge}]" for row in rates])
        axes.set_ylim(len(rates) - 0.4, -0.6)
        axes.set_xlabel("win rate (%); bars: 1 and 2 standard errors; dashed: no difference")
        return _svg(figure, title)


def overoptimisation(
    points: Sequence[RunPoint],
    *,
    x_label: str = "proxy reward (nats)",
    y_label: str = "win rate (%)",
    title: str = "Over-optimisation",
    log_x: bool = False,
) -> str:
    """Gold (full line) and judge (dashed) win rates against optimisation of the proxy; a colour per run."""
    if not points:
        return ""
    with _figure(6.4, 3.6) as figure:
        axes = figure.subplots()
        axes.axhline(50, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        for place, run in enumerate(dict.fromkeys(point.run for point in points)):
            colour = COLOURS[place % len(COLOURS)]
            own = sorted((point for point in points if point.run == run), key=lambda point: point.x)
            _series(axes, [(p.x, p.gold, p.gold_error) for p in own], colour, "-", "D", f"{run}: gold")
            _series(axes, [(p.x, p.judge, p.judge_error) for p in own], colour, "--", "o", f"{run}: judge")
        if log_x:
            axes.set_xscale("log")
            apart = _apart([point.x for point in points])
            axes.set_xticks(apart, [f"{x:g}" for x in apart])
            axes.set_xticks([], minor=True)
        axes.set_xlabel(x_label)
        axes.set_ylabel(f"{y_label}; bars: standard error")
        axes.legend(fontsize=7, frameon=False, labelcolor=INK, loc="upper left", bbox_to_anchor=(1.01, 1))
        return _svg(figure, title)


@lru_cache(maxsize=8)
def scatter(points: tuple[Labelled, ...], *, x_label: str, y_label: str, title: str) -> str:
    """Named points with bars of one standard error; on the dashed line both numbers are the same."""
    if not points:
        return ""
    with _figure(5.2, 4.4) as figure:
        axes = figure.subplots()
        ends = [min(min(p.x, p.y) for p in points), max(max(p.x, p.y) for p in points)]
        axes.plot(ends, ends, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        for p in points:
            axes.errorbar(p.x, p.y, xerr=p.x_error, yerr=p.y_error, fmt="o", color=COLOURS[0], elinewidth=1)
            axes.annotate(
                p.label, (p.x, p.y), xytext=(4, 3), textcoords="offset points", fontsize=7, color=INK
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(f"{y_label}; bars: standard error")
        axes.set_title(title, fontsize=9, loc="left", color=INK)
        return _svg(figure, title)


def _apart(values: Sequence[float]) -> list[float]:
    """Values of a logarithmic axis without those whose label would run into that of a smaller one."""
    least = (max(values) / min(values)) ** 0.08
    found: list[float] = []
    for value in sorted(set(values)):
        if not found or value >= found[-1] * least:
            found.append(value)
    return found


def _panels(log: Sequence[Mapping[str, float]], names: Sequence[str] | None) -> list[Panel]:
    logged = [name for name in dict.fromkeys(key for row in log for key in row) if name != "step"]
    wanted = [name for name in logged if names is None or name in names]
    panels = [(label, unit, tuple(m for m in metrics if m in wanted)) for label, unit, metrics in PANELS]
    known = {name for _, _, metrics in PANELS for name in metrics}
    others = [(name, "as logged", (name,)) for name in wanted if names is not None and name not in known]
    return [panel for panel in [*panels, *others] if any(_points(log, metric) for metric in panel[2])]


def _points(log: Sequence[Mapping[str, float]], metric: str) -> list[tuple[float, float]]:
    """(step, value) where the metric was logged and is a number; rows without a step are counted."""
    found = ((row.get("step", place), row.get(metric)) for place, row in enumerate(log))
    return [(step, value) for step, value in found if value is not None and math.isfinite(value)]


def _curve(axes: Axes, log: Sequence[Mapping[str, float]], metrics: Sequence[str]) -> None:
    for place, metric in enumerate(metrics):
        points = _points(log, metric)
        if not points:
            continue
        steps, values = zip(*points, strict=True)
        marker = "o" if len(points) < 4 else ""
        axes.plot(
            steps,
            values,
            color=COLOURS[place],
            linestyle=LINES[place % len(LINES)],
            linewidth=1.3,
            marker=marker,
            markersize=3,
            label=LEGENDS.get(metric, metric),
        )
    if len(metrics) > 1:
        axes.legend(fontsize=7, frameon=False, labelcolor=INK, handlelength=2.2)


def _series(
    axes: Axes,
    points: Sequence[tuple[float, float | None, float | None]],
    colour: str,
    line: str,
    marker: str,
    label: str,
) -> None:
    known = [(x, y, error or 0.0) for x, y, error in points if y is not None]
    if not known:
        return
    x, y, error = zip(*known, strict=True)
    face = colour if line == "-" else "none"
    axes.errorbar(
        x, y, yerr=error, color=colour, linestyle=line, marker=marker, label=label, markerfacecolor=face
    )


@contextmanager
def _figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in inches, drawn without pyplot: no window, no global state, no backend to choose."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": "alpacafarm",
        "text.parse_math": False,  # a run's name may hold a dollar sign
        "font.family": "DejaVu Sans",  # comes with matplotlib: the same layout everywhere
        "font.size": 8,
        "text.color": INK,
        "axes.edgecolor": FAINT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.5,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "axes.formatter.useoffset": False,
        "axes.formatter.limits": (-3, 6),
    }
    with rc_context(style):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, title: str) -> str:
    """The figure as an element to put into a page: no prolog, no metadata, ids of its own."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    raw = file.getvalue()
    raw = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", raw[raw.index("<svg") :], flags=re.DOTALL)
    raw = raw.replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
    for place, colour in enumerate(COLOURS):
        raw = raw.replace(colour, f"var(--series-{place}, {colour})")
    raw = raw.replace(INK, "currentColor")
    raw = raw.replace(f"stroke: {FAINT}", "stroke: currentColor; stroke-opacity: .25")
    raw = raw.replace(f"fill: {FAINT}", "fill: currentColor; fill-opacity: .25")
    own = "p" + hashlib.sha256((title + raw).encode()).hexdigest()[:8]
    raw = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{own}-", raw)
    attributes = f'role="img" aria-label="{escape(title)}" class="plot" style="stroke-linejoin: round"'
    return raw.replace("<svg ", f"<svg {attributes} ", 1).strip()
