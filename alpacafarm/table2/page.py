"""The table to read: Markdown, and a page that needs no other file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from markupsafe import Markup

from alpacafarm.report import plots, render
from alpacafarm.report.plots import Labelled
from alpacafarm.report.result import duration, number
from alpacafarm.stats.interval import Interval
from alpacafarm.stats.seed_mean import SeedMean
from alpacafarm.table2.rows import COLUMNS, ROWS, Column, Row
from alpacafarm.table2.table import Agreement, Entry, Table

TITLE = "Table 2"
MAIN = ("method", *(f"{who}, {column}" for column in COLUMNS for who in ("paper", "ours", "gold")))
DETAILS = (
    "method",
    "judge vs SFT",
    "gold vs SFT",
    "null",
    "proxy reward",
    "KL to SFT",
    "length",
    "own stages",
    "seeds",
)
# Measures of the table by the head of their column, and decimal places.
MEASURES: Mapping[str, tuple[str, int]] = {
    "judge vs SFT": ("vs_sft", 1),
    "gold vs SFT": ("gold_vs_sft", 1),
    "null": ("null", 1),
    "proxy reward": ("reward_model_score", 3),
    "KL to SFT": ("kl_to_sft", 2),
    "length": ("avg_length", 0),
}
MEANINGS = (
    "Win rates in percent against the reference outputs, a tie counting one half. paper: Dubois et al. 2023, "
    "against text-davinci-003; ours: these runs, by their judge; gold: the same outputs by the embedded "
    "world's true preference; sim: trained on simulated feedback; human: on human feedback.",
    "The first error is over instructions (of one run, the mean over seeds), the second over seeds (of the "
    "mean); KL, proxy reward and length have the second only. In brackets the rank in the column. LLaMA 7B "
    "stands for the base model of these runs.",
    "null: SFT redrawn against SFT. KL in nats per response, for best-of-n the analytic bound. Length in "
    "characters. own stages: time in stages that no other row needs, and in the row's policy and evaluation.",
)


def cell_text(cell: SeedMean | None, places: int) -> str:
    if cell is None:
        return "-"
    errors = [error for error in (cell.over_instructions, cell.over_seeds) if error is not None]
    return " ± ".join(number(value, places) for value in (cell.mean, *errors))


def main_line(shown: Table, row: Row) -> list[str]:
    """The row's label, and for each column the paper's number, ours and gold, with their ranks."""
    line = [row.label]
    for column in COLUMNS:
        paper, found = row.paper(column), shown.entries.get((row.name, column))
        cells = {
            "paper": SeedMean(paper.win_rate, paper.standard_error, None) if paper else None,
            "ours": found.cells.get("win_rate") if found else None,
            "gold": found.cells.get("gold") if found else None,
        }
        for who, cell in cells.items():
            rank = shown.ranks[f"{who}, {column}"].get(row.name)
            told = cell_text(cell, 1) if rank is None else f"{cell_text(cell, 1)} ({rank:g})"
            line.append(told if found is None or who != "ours" or cell else missing(found) or told)
    return line


def missing(found: Entry) -> str | None:
    """Why a row without a result has none, where that is known."""
    return "failed" if found.failed else "needs labels" if found.unlabelled else None


def detail_line(row: Row, found: Entry, seeds: Sequence[int]) -> list[str]:
    cells = [cell_text(found.cells.get(name), places) for name, places in MEASURES.values()]
    return [row.label, *cells, duration(found.seconds), f"{len(found.seeds)} of {len(seeds)}"]


def details(shown: Table, column: Column) -> list[list[str]]:
    found = ((row, shown.entries.get((row.name, column))) for row in ROWS)
    return [detail_line(row, entry, shown.seeds) for row, entry in found if entry]


def agreement_lines(agreements: Sequence[Agreement]) -> list[list[str]]:
    return [
        [
            f"{a.first} / {a.second}",
            str(len(a.methods)),
            _interval(a.ranks.spearman),
            _interval(a.ranks.kendall_tau_b),
        ]
        for a in agreements
    ]


AGREEMENT = ("orders of", "methods", "Spearman", "Kendall tau-b")


def _interval(found: Interval | None) -> str:
    return "-" if found is None else f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]"


def failures(shown: Table) -> list[tuple[str, str]]:
    return _messages(shown, lambda entry: entry.failed)


def unlabelled(shown: Table) -> list[tuple[str, str]]:
    return _messages(shown, lambda entry: entry.unlabelled)


def _messages(shown: Table, of: Callable[[Entry], Mapping[int, str]]) -> list[tuple[str, str]]:
    return [
        (f"{row.label} on {column}, seed {seed}", message)
        for row in ROWS
        for column in COLUMNS
        if (row.name, column) in shown.entries
        for seed, message in of(shown.entries[row.name, column]).items()
    ]


def summary(shown: Table) -> list[str]:
    """How much of the table there is, and who judged."""
    entries = shown.entries.values()
    done, failed = sum(len(e.seeds) for e in entries), sum(len(e.failed) for e in entries)
    waiting = sum(len(e.waiting) for e in entries)
    seeds = ", ".join(map(str, shown.seeds))
    people = f"{len(unlabelled(shown))} need labels, " if unlabelled(shown) else ""
    told = f"{done} runs done, {failed} failed, {people}{waiting} to come"
    lines = [f"scale {shown.scale}, seeds {seeds}: {told}"]
    for column in COLUMNS:
        judges = {
            judge: None for row in ROWS if (e := shown.entries.get((row.name, column))) for judge in e.judges
        }
        if judges:
            lines.append(f"judge, {column}: {', '.join(judges)}")
    return [*lines, *shown.notes]


def markdown(shown: Table) -> str:
    lines = [f"# {TITLE}", "", *(f"- {line}" for line in summary(shown)), ""]
    lines += _markdown(MAIN, [main_line(shown, row) for row in ROWS])
    for column in COLUMNS:
        lines += ["", f"## On {column} feedback", "", *_markdown(DETAILS, details(shown, column))]
    if shown.agreements:
        lines += ["", "## Do the columns order the methods alike?", ""]
        lines += _markdown(AGREEMENT, agreement_lines(shown.agreements))
    for title, found in (("Failed", failures(shown)), ("Waiting for people", unlabelled(shown))):
        lines += ["", f"## {title}", ""] if found else []
        lines += [f"- {run}: {' '.join(message.split())}" for run, message in found]
    return "\n".join([*lines, "", *MEANINGS]) + "\n"


def _markdown(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return ["| " + " | ".join(line) + " |" for line in (heads, rule, *lines)]


def html(shown: Table) -> str:
    return render.page(
        "table2.html.j2",
        title=TITLE,
        summary=summary(shown),
        main=(MAIN, [main_line(shown, row) for row in ROWS]),
        details={column: (DETAILS, details(shown, column)) for column in COLUMNS},
        agreement=(AGREEMENT, agreement_lines(shown.agreements)),
        messages={"Failed": failures(shown), "Waiting for people": unlabelled(shown)},
        meanings=MEANINGS,
        plots=[Markup(drawing) for drawing in drawings(shown) if drawing],
    )


def drawings(shown: Table) -> list[str]:
    """Sim against human, by the judges and in the paper: the paper's figure on methods."""
    ours, papers = [], []
    for row in ROWS:
        cells = [
            e.cells.get("win_rate") if (e := shown.entries.get((row.name, c))) else None for c in COLUMNS
        ]
        if cells[0] and cells[1]:
            ours.append(Labelled(row.label, cells[0].mean, cells[1].mean, cells[0].error, cells[1].error))
        if row.human:
            errors = row.sim.standard_error, row.human.standard_error
            papers.append(Labelled(row.label, row.sim.win_rate, row.human.win_rate, *errors))
    x, y = "sim: win rate (%)", "human: win rate (%)"
    return [
        plots.scatter(tuple(points), x_label=x, y_label=y, title=title)
        for points, title in ((ours, "Ours"), (papers, "Paper"))
    ]
