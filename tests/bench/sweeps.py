"""What a sweep costs beside its stages: python -m tests.bench.sweeps

A hundred runs whose stages are all in the store, against one such run; and the memory after a fifth of them
and in the end. Writes bench/sweeps.json.
"""

import json
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
from rich.console import Console

from tests.runs import farm

RUNS = 100
EARLY = 20


def main() -> None:
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        asked = farm.tiny("ppo", f"store='{home / 'store'}'")
        farm.perform(home / "made", asked)
        started = time.perf_counter()
        subprocess.run(
            farm.command(*asked, f"hydra.run.dir='{home / 'one'}'"), check=True, capture_output=True
        )
        one = time.perf_counter() - started
        told = {"one_run_seconds": one, **sweep(home, asked)}
    Path("bench").mkdir(exist_ok=True)
    Path("bench/sweeps.json").write_text(json.dumps(told, indent=1) + "\n")
    Console(width=120).print(
        f"a sweep of {RUNS} runs whose stages are made: {told['seconds']:.1f} s, a single one {one:.1f} s; "
        f"{told['early_mib']:.0f} MiB after {EARLY} runs, {told['late_mib']:.0f} MiB in the end"
    )


def sweep(home: Path, asked: list[str]) -> dict[str, float]:
    """Runs that differ in a key on which no stage depends."""
    differing = f"budget.max_calls=range(1,{RUNS + 1})"
    command = farm.command("-m", *asked, differing, f"hydra.sweep.dir='{home / 'sweep'}'")
    started, early, late = time.perf_counter(), 0, 0
    with psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            try:
                late = process.memory_info().rss or late
            except psutil.Error:
                break
            if not early and (home / "sweep" / str(EARLY) / "result.json").exists():
                early = late
            time.sleep(0.1)
    seconds = time.perf_counter() - started
    assert len(list((home / "sweep").glob("*/result.json"))) == RUNS
    return {"runs": RUNS, "seconds": seconds, "early_mib": early / 2**20, "late_mib": late / 2**20}


if __name__ == "__main__":
    main()
