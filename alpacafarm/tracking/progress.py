"""Progress on the console: a bar on a terminal, a line every ten seconds elsewhere, one rank only."""

import os
import sys
import time
from collections.abc import Callable
from functools import cache
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress
from rich.text import Text

from alpacafarm.ports import Progress

EVERY_S = 10.0
CONSOLE = "ALPACAFARM_CONSOLE"  # a launcher's child finds here the descriptor of the parent's stderr


def progress(total: int, label: str, *, rank: int = 0, stream: TextIO | None = None) -> Progress:
    """`advance(done)` takes how many of `total` are done by now, not how many more."""
    stream = stream or console()
    if rank != 0:
        return Silent()
    return Bar(total, label, stream) if stream.isatty() else Lines(total, label, stream)


def console() -> TextIO:
    """Where a person may be looking: stderr, the parent's if a launcher started this process."""
    return _inherited(os.environ[CONSOLE]) if CONSOLE in os.environ else sys.stderr


@cache
def _inherited(descriptor: str) -> TextIO:
    return open(int(descriptor), "w", buffering=1, encoding="utf-8", closefd=False)


class Silent:
    def __enter__(self) -> "Silent":
        return self

    def __exit__(self, *exc: object) -> None: ...

    def advance(self, done: int, note: str = "") -> None: ...


class Lines:
    """The first and the last state, and one line about every ten seconds between."""

    def __init__(
        self, total: int, label: str, stream: TextIO, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.total, self.label, self.stream, self.clock = total, label, stream, clock
        self.told = clock()
        self.first: tuple[int, float] | None = None  # a resumed stage begins far from 0, and step 1 is slow
        self.done, self.note, self.fresh = 0, "", False

    def __enter__(self) -> "Lines":
        self.told = self.clock()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.fresh:
            self._tell()

    def advance(self, done: int, note: str = "") -> None:
        self.first = self.first or (done, self.clock())
        self.done, self.note, self.fresh = done, note, True
        if self.clock() - self.told >= EVERY_S:
            self._tell()

    def _tell(self) -> None:
        self.told, self.fresh = self.clock(), False
        parts = [f"{self.label} {self.done}/{self.total}"]
        first, since = self.first or (0, self.told)
        spent, made = self.told - since, self.done - first
        if spent > 0 and made > 0:
            parts += [f"{made / spent:.3g}/s", f"{duration((self.total - self.done) * spent / made)} left"]
        print("  ".join([*parts, self.note]).rstrip(), file=self.stream, flush=True)


class Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g}/s", style="cyan")


class Bar:
    """A live bar with rate and remaining time."""

    def __init__(self, total: int, label: str, stream: TextIO) -> None:
        columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), Rate()]
        note = TextColumn("{task.fields[note]}", style="dim")
        self.rich = RichProgress(*columns, TimeRemainingColumn(), note, console=Console(file=stream))
        self.task = self.rich.add_task(label, total=total, note="")

    def __enter__(self) -> "Bar":
        self.rich.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.rich.stop()

    def advance(self, done: int, note: str = "") -> None:
        self.rich.update(self.task, completed=done, note=note)


def duration(seconds: float) -> str:
    """`48 s`, `3 min 20 s`, `2 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
