"""The leaderboard on the console."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alpacafarm.leaderboard.agreement import Analysis
from alpacafarm.leaderboard.standings import Standing
from alpacafarm.stats.paired import Difference, Duel

DIFFICULTY = {
    "none": "The length control knows nothing of how difficult a row is.",
    "published": "The length control takes the given weights and difficulties, which have no errors.",
    "given": "The length control uses the given difficulties of the rows.",
    "estimated": "The length control estimates the rows' difficulties from the models of this table.",
}


def show(found: Sequence[Sequence[Standing]], out: Console) -> None:
    for place, table in enumerate(found):
        if place:
            out.print()
        first = table[0].entry
        out.print(Text(f"judge {first.judge}, against {first.reference}", style="bold"))
        out.print(standings(table))
        for note in notes(table):
            out.print(Text(note))


def standings(table: Sequence[Standing]) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("model")
    heads = ("win rate, %", "at equal length, %", "wins", "losses", "draws", "total", "failed", "length")
    for head in heads:
        shown.add_column(head, justify="right")
    for one in table:
        rate, controlled = one.rate, one.controlled
        cells = (
            one.entry.name,
            _percent(rate.win_rate, rate.standard_error) if rate else "-",
            _percent(controlled.win_rate, controlled.standard_error) if controlled else "-",
            *(
                map(str, (rate.n_wins, rate.n_wins_base, rate.n_draws, rate.n_total))
                if rate
                else ("0", "0", "0", "0")
            ),
            str(sum(one.failures.values())),
            "-" if one.avg_length is None else f"{one.avg_length:.0f}",
        )
        shown.add_row(*map(Text, cells))
    return shown


def notes(table: Sequence[Standing]) -> Iterator[str]:
    """Why a number is absent, what was lost, and how lengths were controlled."""
    for one in table:
        if one.failures:
            told = ", ".join(f"{count} {kind}" for kind, count in one.failures.items())
            yield f"{one.entry.name}: rows without a verdict, which are not in the total: {told}"
        if one.controlled and one.controlled.reason:
            yield f"{one.entry.name}: no win rate at equal length: {one.controlled.reason}"
    fitted = {one.controlled.difficulty for one in table if one.controlled and one.controlled.win_rate}
    yield from (DIFFICULTY[told] for told in DIFFICULTY if told in fitted)


def show_differences(
    table: Sequence[Standing], found: Mapping[tuple[str, str], Difference], out: Console
) -> None:
    """Each model less each one above it."""
    names = [one.entry.name for one in table if one.rate]
    pairs = [(a, b) for i, b in enumerate(names) for a in names[i + 1 :] if (a, b) in found]
    if not pairs:
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for head in ("model", "less"):
        shown.add_column(head)
    for head in ("difference", "95% interval", "p", "better", "worse", "equal", "rows"):
        shown.add_column(head, justify="right")
    for a, b in pairs:
        one = found[a, b]
        counts = map(str, (one.n_better, one.n_worse, one.n_ties, one.n_total))
        interval = f"{one.low:+.1f} to {one.high:+.1f}"
        shown.add_row(*map(Text, (a, b, f"{one.estimate:+.1f}", interval, _p(one.p), *counts)))
    first = table[0].entry
    out.print(
        Text(f"\ndifferences of win rates, judge {first.judge}, against {first.reference}", style="bold")
    )
    out.print(shown)


def show_duels(judge: str, names: Sequence[str], cells: Mapping[tuple[str, str], Duel], out: Console) -> None:
    """How often, in percent, the row's model was preferred to the column's.

    Not where all met one baseline only: the tables say that already.
    """
    if any(all(name in pair for pair in cells) for name in names):
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("preferred to")
    for name in names:
        shown.add_column(name, justify="right")
    for a in names:
        row = [f"{cells[a, b].win_rate:.1f}" if (a, b) in cells else "-" for b in names]
        shown.add_row(*map(Text, (a, *row)))
    out.print(Text(f"\nhead to head in percent, judge {judge}", style="bold"))
    out.print(shown)


def show_analyses(found: Sequence[Analysis], out: Console) -> None:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    shown.add_column("judge")
    for head in ("agreement, %", "bias, %", "variance, %", "prefers longer", "lists", "the first", "pairs"):
        shown.add_column(head, justify="right")
    for one in found:
        agreement = one.agreement
        told = "-" if agreement is None else _percent(agreement, one.agreement_error)
        rates = (one.bias, one.variance, one.prefers_longer, one.prefers_lists, one.prefers_first)
        cells = (one.judge, told, *("-" if r is None else f"{r:.1f}" for r in rates), str(one.n_pairs))
        shown.add_row(*map(Text, cells))
    out.print(Text(f"\nagainst {found[0].gold}", style="bold"))
    out.print(shown)


def _p(value: float) -> str:
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _percent(value: float | None, error: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if error is None else f"{value:.2f} ± {error:.2f}"
