"""The tables at the end of a run, on the console and as Markdown."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from alpacafarm.report.result import Reading, Result, duration, measures, number
from alpacafarm.types import Output

SIDE_BY_SIDE_WIDTH = 80  # columns, below which answers stand in turn
PLAIN_WIDTH = 110  # columns, where stdout is a file or a pipe


@dataclass(frozen=True)
class Sample:
    """One instruction with SFT's answer and the policy's; `preference` is 2 for the policy, 1 for SFT."""

    instruction: str
    input: str
    before: str
    after: str
    preference: float | None = None
    annotator: str = ""

    @property
    def verdict(self) -> str:
        if self.preference is None:
            return ""
        better = "policy better" if self.preference > 1.5 else "SFT better"
        said = "tie" if self.preference == 1.5 else better
        return f"{said} ({self.annotator})" if self.annotator else said


def samples(
    before: Sequence[Output],
    after: Sequence[Output],
    preferences: Mapping[str, float | None] | None = None,
    *,
    annotator: str = "",
    count: int = 3,
) -> tuple[Sample, ...]:
    """Answers of SFT and of the policy to the same instructions, joined by id.

    They are spread evenly over the rows, so that nobody chose them by how they look. Where an instruction has
    several answers the first is shown.
    """
    first = {row.id: row for row in reversed(before)}
    both = [row for row in {row.id: row for row in reversed(after)}.values() if row.id in first]
    both.reverse()
    count = min(count, len(both))
    chosen = [both[(2 * i + 1) * len(both) // (2 * count)] for i in range(count)]
    known = preferences or {}
    return tuple(
        Sample(row.instruction, row.input, first[row.id].output, row.output, known.get(row.id), annotator)
        for row in chosen
    )


def result_table(result: Result, reading: Reading) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("measure")
    table.add_column("value", justify="right", style="bold")
    table.add_column("std. error", justify="right")
    table.add_column("unit")
    table.add_column("judge")
    for row in measures(result, reading):
        if row.value is not None:
            table.add_row(*map(Text, (row.label, row.value_text, row.error_text, row.unit, row.judge)))
    return table


def stage_table(result: Result) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage")
    table.add_column("makes")
    table.add_column("state")
    table.add_column("time", justify="right")
    table.add_column("key", no_wrap=True)
    for line in result.stages:
        table.add_row(*map(Text, (line.name, line.kind, line.state, duration(line.seconds), line.key)))
    return table


def sample_tables(rows: Sequence[Sample], *, side_by_side: bool = True) -> RenderableType:
    """Before and after in two columns, or in turn where the console is narrow."""
    blocks: list[RenderableType] = []
    for place, row in enumerate(rows, start=1):
        answers = {"SFT": Text(printable(row.before)), "policy": Text(printable(row.after))}
        table = Table(box=box.ROUNDED, expand=True)
        if side_by_side:
            for name in answers:
                table.add_column(name, ratio=1)
            table.add_row(*answers.values())
        else:
            table.add_column("by", no_wrap=True)
            table.add_column("answer", ratio=1)
            for name, answer in answers.items():
                table.add_row(name, answer)
        asked = "\n".join(printable(part) for part in (row.instruction, row.input) if part)
        heading = _heading(place, row, f" of {len(rows)}")
        blocks += [Text(heading, style="bold"), Text(asked), table, Text()]
    return Group(*blocks)


def show(
    result: Result,
    rows: Sequence[Sample] = (),
    *,
    reading: Reading | None = None,
    report: str | None = None,
    console: Console | None = None,
) -> None:
    """Prints the result, the stages, the samples and where the report is."""
    if console is None:
        console = Console() if sys.stdout.isatty() else Console(width=PLAIN_WIDTH)
    if not console.encoding.lower().startswith("utf"):
        plain = text(result, rows, reading=reading, report=report)
        console.file.write(plain.encode(console.encoding, "replace").decode(console.encoding))
        return
    reading = reading or Reading()
    console.print(Text("Stages", style="bold"), stage_table(result), sep="\n")
    console.print(Text(title(result), style="bold"), result_table(result, reading), sep="\n")
    console.print(*map(Text, notes(result, reading)), Text(), sep="\n")
    if rows:
        console.print(sample_tables(rows, side_by_side=console.width >= SIDE_BY_SIDE_WIDTH))
    if report:
        console.print(Text(f"Report: {report}"), soft_wrap=True)


def text(
    result: Result, rows: Sequence[Sample] = (), *, reading: Reading | None = None, report: str | None = None
) -> str:
    """What `show` prints, without colour."""
    file = io.StringIO()
    console = Console(file=file, width=PLAIN_WIDTH, no_color=True, force_terminal=False)
    show(result, rows, reading=reading, report=report, console=console)
    return file.getvalue()


def markdown(result: Result, rows: Sequence[Sample] = (), *, reading: Reading | None = None) -> str:
    reading = reading or Reading()
    lines = [f"## {_cell(title(result))}", "", "| measure | value | std. error | unit | judge |"]
    lines.append("|---|---:|---:|---|---|")
    for row in measures(result, reading):
        if row.value is not None:
            lines.append(_line(row.label, row.value_text, row.error_text, row.unit, row.judge))
    lines += ["", *(f"- {_cell(note)}" for note in notes(result, reading)), ""]
    lines += ["| stage | makes | state | time | key |", "|---|---|---|---:|---|"]
    for stage in result.stages:
        lines.append(_line(stage.name, stage.kind, stage.state, duration(stage.seconds), f"`{stage.key}`"))
    for place, sample in enumerate(rows, start=1):
        lines += ["", f"### {_heading(place, sample)}", ""]
        lines += _fenced("Instruction", sample.instruction)
        lines += _fenced("Input", sample.input) if sample.input else []
        lines += [*_fenced("SFT", sample.before), *_fenced("Policy", sample.after)]
    return "\n".join(lines) + "\n"


def printable(raw: str) -> str:
    """Control characters made visible: an answer must not be able to move the cursor or colour the screen."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in raw)


def title(result: Result) -> str:
    parts = [result.name, result.method]
    if result.feedback:
        parts.append(f"{result.feedback} feedback")
    parts += [f"model {result.model}", f"data {result.data}", f"seed {result.seed}"]
    if result.kl_coef is not None:
        parts.append(f"KL coefficient {result.kl_coef:g}")
    return ", ".join(dict.fromkeys(parts))


def notes(result: Result, reading: Reading) -> list[str]:
    """What the table leaves out: counts, failures, what was not measured, the cost."""
    lines = []
    if result.eval:
        judged = result.eval
        lines.append(
            f"{judged.n_total} instructions judged against {judged.reference}: {judged.n_wins} won, "
            f"{judged.n_wins_base} lost, {judged.n_draws} tied (a tie is half a win)"
        )
    if reading.n_failures is not None:
        lines.append(f"{reading.n_failures} comparisons got no verdict and are not counted")
    absent = [row.label for row in measures(result, reading) if row.value is None]
    if absent:
        lines.append("not measured: " + ", ".join(absent))
    lines += reading.notes
    cost = f"{result.judge_calls} judge calls, {number(result.price_usd, 2)} USD"
    return [*lines, f"{cost}, {duration(result.seconds)} in all"]


def _heading(place: int, row: Sample, of: str = "") -> str:
    return f"Sample {place}{of}: {row.verdict}" if row.verdict else f"Sample {place}{of}"


def _line(*cells: str) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(raw: str) -> str:
    return raw.replace("|", "\\|").replace("\n", " ")


def _fenced(label: str, raw: str) -> list[str]:
    """A code block whose fence is longer than any run of backticks in it."""
    longest = max((len(run) for run in re.findall("`+", raw)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{label}:", fence, raw, fence]
