import io
from dataclasses import replace

import pytest
from rich.console import Console

from alpacafarm.report import table
from alpacafarm.report.result import Reading
from alpacafarm.report.table import Sample
from alpacafarm.types import Output

NUMBERS = ("61.4", "1.5", "59.8", "63.1", "58.9", "60.0", "49.8", "1.732", "1.284", "9.417", "214.7")


def outputs(ids, text):
    return [Output(id=name, instruction=f"Do {name}.", input="", output=text, generator="x") for name in ids]


def printed(row: Sample, width: int = 110) -> str:
    file = io.StringIO()
    Console(file=file, width=width).print(table.sample_tables([row], side_by_side=width >= 80))
    return file.getvalue()


def test_console_table_holds_every_number(run):
    shown = table.text(run.result, run.samples, reading=run.reading, report="out/report.html")
    assert [number for number in NUMBERS if number not in shown] == []
    assert "KL to SFT (k1)" in shown
    assert "3 comparisons got no verdict" in shown
    assert "out/report.html" in shown


def test_stage_table_holds_name_state_and_whole_key(result):
    shown = table.text(result)
    assert all(stage.key in shown and stage.name in shown and stage.state in shown for stage in result.stages)


def test_markdown_holds_the_same_numbers(run):
    shown = table.markdown(run.result, run.samples, reading=run.reading)
    assert [number for number in NUMBERS if number not in shown] == []
    rows = [line for line in shown.splitlines() if line.startswith("| win rate")]
    assert rows == [
        "| win rate vs reference | 61.4 | 1.5 | % | world pool |",
        "| win rate vs SFT | 63.1 | 1.5 | % | world pool |",
    ]


def test_what_was_not_measured_is_named_below_the_table(result):
    shown = table.text(replace(result, gold=None, kl_to_sft=None))
    line = next(line for line in shown.splitlines() if line.startswith("not measured"))
    assert "gold vs SFT" in line
    assert "KL to SFT" in line
    assert "proxy reward" not in line


def test_without_a_terminal_there_are_no_escape_sequences(run, monkeypatch, capsys):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    table.show(run.result, run.samples)
    assert "\x1b" not in capsys.readouterr().out


def test_answers_cannot_steer_the_terminal():
    shown = printed(Sample("a", "", "\x1b[2J\x07gone", "fine"))
    assert "\x1b" not in shown
    assert "\\x1b[2J\\x07gone" in shown


def test_answers_are_not_taken_for_markup():
    assert "[red]stop[/red]" in printed(Sample("a", "", "[red]stop[/red]", ""))


def test_an_ascii_stdout_gets_ascii(run):
    raw = io.BytesIO()
    console = Console(file=io.TextIOWrapper(raw, encoding="ascii", write_through=True), width=110)
    table.show(run.result, (Sample("caf\u00e9", "", "\u4f60\u597d", "x"),), console=console)
    assert b"61.4" in raw.getvalue()
    assert raw.getvalue().isascii()


@pytest.mark.parametrize("width", [60, 110])
def test_samples_show_both_answers_at_any_width(width):
    shown = printed(Sample("Name a fruit.", "red", "pear", "apple", 2.0, "world"), width)
    for part in ("Name a fruit.", "red", "pear", "apple", "policy better (world)"):
        assert part in shown


def test_samples_are_joined_by_id_and_spread_evenly():
    ids = [f"{i}" for i in range(9)]
    found = table.samples(outputs(reversed(ids), "old"), outputs(ids, "new"), {"1": 2.0, "4": 1.5, "7": 1.0})
    assert [row.instruction for row in found] == ["Do 1.", "Do 4.", "Do 7."]
    assert [(row.before, row.after) for row in found] == [("old", "new")] * 3
    assert [row.verdict for row in found] == ["policy better", "tie", "SFT better"]


def test_samples_show_the_first_answer_to_each_instruction():
    many = [replace(row, output=f"{row.output}{row.sample}") for row in outputs("aabb", "")]
    numbered = [replace(row, output=str(place), sample=place % 2) for place, row in enumerate(many)]
    assert [row.after for row in table.samples(outputs("ab", "old"), numbered)] == ["0", "2"]


def test_a_sample_that_nobody_judged_claims_no_verdict():
    assert printed(Sample("a", "", "x", "y")).splitlines()[0].strip() == "Sample 1 of 1"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_rows_than_asked_for_are_all_shown(count):
    ids = [f"{i}" for i in range(count)]
    assert len(table.samples(outputs(ids, "old"), outputs(ids, "new"))) == count


def test_markdown_fences_are_longer_than_those_inside(result):
    shown = table.markdown(result, [Sample("a", "", "```\ncode\n```", "b|c")])
    assert "````\n```\ncode\n```\n````" in shown


def test_markdown_cells_keep_their_columns(result):
    shown = table.markdown(replace(result, eval=replace(result.eval, judge="a|b")), reading=Reading())
    assert "| win rate vs reference | 61.4 | 1.5 | % | a\\|b |" in shown
