"""Win rates against the swept setting, and against how far the proxy was optimised: its reward, and the
square root of the KL to SFT.

Gao et al. 2023 (arXiv:2210.10760) plot gold reward against the same root, Dubois et al. 2023 (figure 4) win
rates against the proxy reward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from alpacafarm.report import plots
from alpacafarm.report.plots import RunPoint
from alpacafarm.report.result import Rate, Result

# Settings that say how long or how hard the proxy was optimised: a line runs along their values.
ALONG = ("method.pick.step", "method.steps", "method.n")
Measured = tuple[Mapping[str, str], Result]  # the settings in which the runs differ, and one run's result


def drawings(runs: Sequence[Measured]) -> list[str]:
    """Up to three plots for each judge; none where fewer than two runs have the numbers."""
    found = []
    for judge in dict.fromkeys(result.eval.judge for _, result in runs if result.eval):
        own = [(settings, r) for settings, r in runs if r.eval and r.eval.judge == judge]
        against = "SFT" if all(result.vs_sft for _, result in own) else "reference"
        names = lines(own)
        settings = along([asked for asked, _ in own])
        axes: list[tuple[str, Callable[[Measured], float | None]]] = [
            (key, partial(number, key)) for key in settings
        ]
        axes += [("proxy reward (nats)", proxy), ("square root of KL to SFT (nats)", root_kl)]
        for label, x in axes:
            points = [
                point(name, at, run[1], against)
                for name, run in zip(names, own, strict=True)
                if (at := x(run)) is not None
            ]
            if len(points) > 1:
                title = f"{label}, judge {judge}"
                y_label = f"win rate vs {against} (%)"
                is_log = label in settings and is_wide([p.x for p in points])
                found.append(
                    plots.overoptimisation(points, x_label=label, y_label=y_label, title=title, log_x=is_log)
                )
    return found


def number(key: str, run: Measured) -> float | None:
    """The run's value of a setting; None where it does not have it."""
    value = run[0][key]
    return float(value) if _is_number(value) else None


def is_wide(values: Sequence[float]) -> bool:
    """Whether equal steps would crowd the small ones."""
    return min(values) > 0 and max(values) >= 8 * min(values)


def proxy(run: Measured) -> float | None:
    return run[1].reward_model_score


def root_kl(run: Measured) -> float | None:
    """A sampled KL near zero may come out negative."""
    found = run[1].kl_to_sft
    return None if found is None else math.sqrt(max(0.0, found))


def point(line: str, x: float, result: Result, against: str) -> RunPoint:
    gold: Rate | None
    if against == "SFT":
        judge, gold = result.vs_sft, result.gold.vs_sft if result.gold else None
    else:
        judge = Rate(result.eval.win_rate, result.eval.standard_error) if result.eval else None
        gold = Rate(result.gold.win_rate, result.gold.standard_error) if result.gold else None
    return RunPoint(
        run=line,
        x=x,
        gold=gold.win_rate if gold else None,
        judge=judge.win_rate if judge else None,
        gold_error=gold.standard_error if gold else None,
        judge_error=judge.standard_error if judge else None,
    )


def lines(runs: Sequence[Measured]) -> list[str]:
    """The name of each run's line: the settings that do not change along it, else the method."""
    keys = along([settings for settings, _ in runs])
    return [
        ", ".join(
            f"{key.rpartition('.')[2]}={value}"
            for key, value in settings.items()
            if key not in keys and value != "-"
        )
        or result.method
        for settings, result in runs
    ]


def along(settings: Sequence[Mapping[str, str]]) -> set[str]:
    """The keys of `ALONG` that vary, else the one with the most values that are all numbers; no seed."""
    values = {key: {run[key] for run in settings} - {"-"} for run in settings[:1] for key in run}
    if known := values.keys() & set(ALONG):
        return known
    numeric = [key for key in values if key != "seed" and all(map(_is_number, values[key]))]
    return {max(numeric, key=lambda key: len(values[key]))} if numeric else set()


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
