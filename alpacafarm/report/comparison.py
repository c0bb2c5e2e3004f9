"""Several runs in one table and two plots, from their folders: what a sweep leaves beside its runs.

A column holds the numbers of one judge only. Proxy rewards are comparable where the reward model is the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.table import Table
from rich.text import Text

from alpacafarm.artifacts.manifest import to_json
from alpacafarm.data.rows import write_text
from alpacafarm.report import folder as run_folder
from alpacafarm.report import frontier, over_seeds, render
from alpacafarm.report.differences import Apart, apart
from alpacafarm.report.folder import RunFolder
from alpacafarm.report.over_seeds import Averaged
from alpacafarm.report.result import Column, Measure, Reading, Result, measures
from alpacafarm.report.status import console
from alpacafarm.report.table import title
from alpacafarm.stage import Kind

ABSENT = "-"  # a setting that a run does not have
UNTOLD = ("store", "name", "action", "recipe")  # no result depends on these; see `differing`


@dataclass(frozen=True)
class Compared:
    """A run in the table. `settings` are the keys in which the runs differ, as text."""

    name: str
    settings: Mapping[str, str]
    folder: RunFolder
    measures: Mapping[Column, Measure]
    reward_model: str | None  # that gave the proxy rewards: its key, or what was given

    @property
    def told(self) -> str:
        """What became of a run that has no result."""
        return self.folder.failure or self.folder.state


def compared(folders: Sequence[RunFolder]) -> list[Compared]:
    names = short_names([folder.path for folder in folders])
    keys = differing(folders)
    return [
        Compared(
            name,
            {key: setting(folder, key) for key in keys},
            folder,
            {row.column: row for row in known(folder.result)} if folder.result else {},
            reward_model(folder),
        )
        for name, folder in zip(names, folders, strict=True)
    ]


def short_names(paths: Sequence[Path]) -> list[str]:
    """The folders' paths without what they have in common."""
    parts = [path.resolve().parts for path in paths]
    shortest = min(map(len, parts), default=1)
    common = 0
    while common < shortest - 1 and len({p[common] for p in parts}) == 1:
        common += 1
    return ["/".join(p[common:]) for p in parts]


def differing(folders: Sequence[RunFolder]) -> list[str]:
    """The method, and the keys of the command lines, where they are not the same in all runs.

    The recipe comes in where nothing else tells runs apart: all it does is to set other keys.
    """
    keys = dict.fromkeys(["method", *(key for folder in folders for key in folder.overrides)])
    asked = [key for key in keys if key not in UNTOLD and not key.startswith(("hydra.", "cluster"))]
    found = [key for key in asked if _differs(folders, key)]
    return found if distinct(folders, found) else [*(["recipe"] if "recipe" in keys else []), *found]


def _differs(folders: Sequence[RunFolder], key: str) -> bool:
    """Runs of one method also differ in what only some of them have set."""
    by_method: dict[str, set[str]] = {}
    for folder in folders:
        by_method.setdefault(setting(folder, "method"), set()).add(setting(folder, key))
    told = set().union(*by_method.values())
    return len(told - {ABSENT}) > 1 or any(len(own) > 1 for own in by_method.values())


def distinct(folders: Sequence[RunFolder], keys: Sequence[str]) -> bool:
    return len({tuple(setting(folder, key) for key in keys) for folder in folders}) == len(folders)


def setting(folder: RunFolder, key: str) -> str:
    """The value in the run's spec, as JSON writes it; of a group or a recipe what the command line said.

    ABSENT where the run knows no such key.
    """
    node: Any = folder.spec
    for part in key.replace("/", ".").split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    if isinstance(node, Mapping) and key not in folder.overrides:
        node = node.get("name", node.get("kind"))
    if node is None or isinstance(node, Mapping):
        return folder.overrides.get(key, ABSENT)
    return node if isinstance(node, str) else json.dumps(node)


def known(result: Result) -> Iterable[Measure]:
    """The measured ones. Outputs that were chosen among samples have no policy, and their KL is a bound."""
    reading = Reading(kl_estimator="k1" if result.policy else "analytic bound")
    return (row for row in measures(result, reading) if row.value is not None)


def reward_model(folder: RunFolder) -> str | None:
    if folder.result is None or folder.result.reward_model_score is None:
        return None
    made = [stage.key for stage in folder.result.stages if stage.kind == Kind.REWARD]
    given = (folder.spec.get("given") or {}).get("rm")
    return made[-1] if made else given


def columns(runs: Sequence[Compared]) -> list[Column]:
    """In the order of a run's own result table, the judges of one measure side by side."""
    found = list(dict.fromkeys(column for run in runs for column in run.measures))
    order = [row.label.partition(" (")[0] for row in measures(Result("", "", None, "", "", 0), Reading())]
    return sorted(found, key=lambda column: order.index(column.label.partition(" (")[0]))


def cells(
    runs: Sequence[Compared], without: Sequence[str] = ()
) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """The table as text: heads (what, by whom or in what unit), and a line of cells for each run."""
    shown = [c for c in columns(runs) if c.label not in without]
    keys = list(runs[0].settings) if runs else []
    models = {run.reward_model for run in runs if run.reward_model}
    heads = [("run", ""), *((key, "") for key in keys)]
    heads += [c.head for c in shown]
    heads += [("proxy reward by", "reward model")] if len(models) > 1 else []
    lines = []
    for run in runs:
        line = [run.name, *run.settings.values()]
        line += [_cell(run.measures.get(c)) for c in shown]
        line += [run.reward_model or "-"] if len(models) > 1 else []
        lines.append(line)
    return heads, lines


def _cell(row: Measure | None) -> str:
    if row is None:
        return "-"
    return row.value_text if row.standard_error is None else f"{row.value_text} ± {row.error_text}"


def as_json(name: str, runs: Sequence[Compared], means: Sequence[Averaged], told_apart: Apart) -> str:
    """Of each run its settings, its state and the keys of its result.json, the stages excepted; means over
    seeds; how far runs are apart."""
    told = [
        {
            "run": run.name,
            "folder": str(run.folder.path.resolve()),
            "state": run.folder.state,
            "failure": run.folder.failure,
            "settings": run.settings,
            "reward_model": run.reward_model,
            "result": {key: value for key, value in asdict(run.folder.result).items() if key != "stages"}
            if run.folder.result
            else None,
        }
        for run in runs
    ]
    return to_json(
        {
            "name": name,
            "runs": told,
            "over_seeds": [line.as_json() for line in means],
            **told_apart.as_json(),
        }
    )


def as_html(name: str, runs: Sequence[Compared], means: Sequence[Averaged], told_apart: Apart) -> str:
    heads, lines = cells(runs)
    mean_heads, mean_lines = over_seeds.cells(means, columns(runs))
    measured = [(run.settings, run.folder.result) for run in runs if run.folder.result]
    return render.page(
        "comparison.html.j2",
        name=name,
        heads=heads,
        lines=lines,
        first_number=1 + len(runs[0].settings) if runs else 1,
        titles={run.name: title(run.folder.result) for run in runs if run.folder.result},
        mean_heads=mean_heads,
        mean_lines=mean_lines,
        first_mean=1 + len(means[0].settings) if means else 0,
        failed={run.name: run.told for run in runs if run.folder.result is None},
        plots=[Markup(drawing) for drawing in frontier.drawings(measured)],
        apart=told_apart,
        several_reward_models=len({run.reward_model for run in runs if run.reward_model}) > 1,
    )


def show(runs: Sequence[Compared]) -> None:
    """The tables on the console, which has no room for all columns."""
    unshown = ("gold score", "null (SFT redrawn)")
    out = console()
    out.print(_table(*cells(runs, unshown), first_number=1 + len(runs[0].settings)))
    if means := over_seeds.averaged(runs):
        shown = [c for c in columns(runs) if c.label not in unshown]
        out.print(Text("\nMeans over seeds ± their standard error"))
        out.print(_table(*over_seeds.cells(means, shown), first_number=1 + len(means[0].settings)))
    for run in runs:
        if run.folder.result is None:
            out.print(Text(f"{run.name}: {run.told}"))


def _table(heads: Sequence[tuple[str, str]], lines: Sequence[Sequence[str]], *, first_number: int) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for place, (what, of) in enumerate(heads):
        is_number = place >= first_number
        head = f"{what}\n{of}" if of else what
        shown.add_column(head, justify="right" if is_number else "left", min_width=11 if is_number else 1)
    for line in lines:
        shown.add_row(*map(Text, line))
    return shown


def write(
    out: Path,
    name: str,
    places: Sequence[Path],
    read: Callable[[Path], RunFolder] = run_folder.read,
) -> list[Compared]:
    """Writes `<name>.json` and `.html` about all runs at or below `places`; nothing where there are none."""
    runs = compared([read(path) for path in run_folder.find(places)])
    if runs:
        told_apart = apart({run.name: run.folder.result for run in runs if run.folder.result})
        means = over_seeds.averaged(runs)
        write_text(out / f"{name}.json", as_json(name, runs, means, told_apart))
        write_text(out / f"{name}.html", as_html(name, runs, means, told_apart))
    return runs
