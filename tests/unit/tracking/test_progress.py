import io
import os

import pytest

from alpacafarm.tracking import progress as module
from alpacafarm.tracking.progress import Bar, Lines, Silent, duration, progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_other_ranks_are_silent():
    stream = Terminal()
    with progress(10, "sft", rank=1, stream=stream) as told:
        told.advance(5, "loss 1.0")
    assert isinstance(told, Silent)
    assert stream.getvalue() == ""


def test_a_bar_on_a_terminal_has_label_count_and_note():
    stream = Terminal()
    with progress(10, "sft", stream=stream) as told:
        told.advance(4, "loss 1.5")
        told.advance(10, "loss 1.0")
    assert isinstance(told, Bar)
    assert "sft" in stream.getvalue()
    assert "10/10" in stream.getvalue()
    assert "loss 1.0" in stream.getvalue()


def test_without_a_terminal_a_line_about_every_ten_seconds_and_the_last_state():
    now, stream = [0.0], io.StringIO()
    with Lines(100, "sft", stream, clock=lambda: now[0]) as told:
        for done in range(1, 26):
            now[0] += 1.0
            told.advance(done, f"loss {done}")
    lines = stream.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == ["sft 10/100", "sft 20/100", "sft 25/100"]
    assert lines[0] == "sft 10/100  1/s  1 min 30 s left  loss 10"


def test_the_rate_of_a_resumed_stage_is_this_process_own():
    now, stream = [0.0], io.StringIO()
    with Lines(1000, "ppo", stream, clock=lambda: now[0]) as told:
        for done in (900, 910, 920):
            now[0] += 6.0
            told.advance(done)
    assert stream.getvalue().splitlines()[-1] == "ppo 920/1000  1.67/s  48 s left"


def test_nothing_done_says_nothing():
    stream = io.StringIO()
    with progress(10, "sft", stream=stream):
        pass
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")],
)
def test_durations_read_well(seconds, text):
    assert duration(seconds) == text


def test_a_launched_process_talks_to_the_console_it_was_given(monkeypatch):
    reading, writing = os.pipe()
    monkeypatch.setenv(module.CONSOLE, str(writing))
    with progress(10, "sft") as told:
        told.advance(10)
    os.close(writing)
    with open(reading) as pipe:
        assert pipe.read() == "sft 10/10\n"
