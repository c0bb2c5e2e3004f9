"""What the console says of many runs: one line when a run begins and one when it has ended."""

import sys
from typing import TextIO

from alpacafarm.report.result import Result, duration, number


class Progress:
    """`place` counts from 0 in the order of the runs."""

    def __init__(self, total: int, stream: TextIO | None = None, *, jobs: int = 1) -> None:
        self.total, self.stream, self.jobs = total, stream or sys.stdout, jobs
        self.spent_s: list[float] = []

    def known(self, place: int, title: str, result: Result) -> None:
        self._tell(f"run {place + 1} of {self.total}: {title}: {rates(result)}, made before")

    def begins(self, place: int, title: str, *, to_do: int) -> None:
        left = ""
        if self.spent_s:  # runs differ, and the mean is all that is known of those to come
            left = f", about {duration(sum(self.spent_s) / len(self.spent_s) * to_do / self.jobs)}"
        self._tell(f"run {place + 1} of {self.total}: {title} ({to_do} to do{left})")

    def ended(self, place: int, result: Result | None, failure: str, seconds: float) -> None:
        self.spent_s.append(seconds)
        told = rates(result) if result else failure
        self._tell(f"    run {place + 1}: {told}, {duration(seconds)}")

    def _tell(self, line: str) -> None:
        print(line, file=self.stream, flush=True)


def rates(result: Result) -> str:
    """Win rates against the references."""
    parts = []
    if result.eval:
        rate = f"{number(result.eval.win_rate, 1)} ± {number(result.eval.standard_error, 1)}"
        parts.append(f"judge {rate} ({result.eval.judge})")
    if result.gold:
        parts.append(f"gold {number(result.gold.win_rate, 1)} ± {number(result.gold.standard_error, 1)}")
    return ", ".join(parts) or "not evaluated"
