"""Annotations a second, beside alpaca-eval's own loop in the same run, and whether memory is flat.

    python -m tests.bench.annotation

A local server answers each request after 50 ms; at most 32 are in flight, so 640 a second are ideal. Client
and server are processes of their own. The CPU bound is what one core could do, at the time that a call takes
of it. Writes bench/annotation.json.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.openai_server import said, server_process

LATENCY_S, CONCURRENCY, WARM_UP = 0.05, 32, 64
IDEAL = CONCURRENCY / LATENCY_S
PAIRS, THEIR_PAIRS = 3000, 150
MEMORY = (1_000, 50_000)
CONFIG = """judge:
  prompt_template: "{template}"
  fn_completions: "openai_completions"
  completions_kwargs: {{model_name: "gpt-4", max_tokens: 100, temperature: 0, num_procs: {procs}}}
  fn_completion_parser: "ranking_parser"
  batch_size: 1
"""
ROOT = Path(__file__).parents[2]


def rank(body: dict[str, Any]) -> str:
    """The server's script: the answer whose text comes first in the alphabet is the better one."""
    first, second = (part.split('"""')[1] for part in said(body).split('"answer": ')[1:3])
    ranks = (1, 2) if first <= second else (2, 1)
    return str([{"model": f"model_{i}", "rank": r} for i, r in enumerate(ranks, 1)])


def pairs(count: int) -> Iterator[dict[str, str]]:
    for i in range(count):
        yield {
            "instruction": f"Say something about the number {i}.",
            "output_1": f"{i} is a number. " * 15,
            "output_2": f"What is {i}? It is what it is. " * 10,
        }


def ours(url: str, count: int) -> dict[str, float]:
    """Through the asker, requests made as they are asked for."""
    from alpacafarm.api.client import ApiClient
    from alpacafarm.request import Request
    from alpacafarm.spec.api import ApiSpec, BudgetSpec, EndpointSpec

    template = told_template().read_text(encoding="utf-8")
    system, user = (part.partition("<|im_end|>")[0] for part in template.split("<|im_start|>")[1:3])

    def requests(count: int, label: str) -> Iterator[Request]:
        for pair in pairs(count):
            text = user.removeprefix("user\n")
            for key, value in pair.items():
                text = text.replace("{" + key + "}", value)
            messages = [
                {"role": "system", "content": system.removeprefix("system\n") + label},
                {"role": "user", "content": text},
            ]
            yield Request("gpt-4", messages, parameters={"max_tokens": 100, "temperature": 0})

    endpoint = EndpointSpec(base_url=url, free=True, concurrency=CONCURRENCY)
    with (
        tempfile.TemporaryDirectory() as store,
        ApiClient(
            ApiSpec(endpoints={"local": endpoint}, prices=None),
            Path(store),
            budget=BudgetSpec(max_usd=None, max_calls=None),
            run="bench",
            stage="bench",
            stage_name="bench",
        ) as client,
    ):
        asker = client.asker("judge")
        assert sum(1 for _ in asker.ask(requests(WARM_UP, "warm up"))) == WARM_UP
        start, cpu = time.perf_counter(), time.process_time()
        assert sum(1 for _ in asker.ask(requests(count, ""))) == count
        return measured(count, start, cpu)


def theirs(url: str, count: int) -> dict[str, float]:
    """Through alpaca-eval with as many threads."""
    os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
    import pandas as pd
    from alpaca_eval.annotators import PairwiseAnnotator

    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "configs.yaml"
        config.write_text(CONFIG.format(template=told_template(), procs=CONCURRENCY))
        annotator = PairwiseAnnotator(annotators_config=str(config), caching_path=None)
        rows = pd.DataFrame(list(pairs(count + CONCURRENCY)))
        annotator.annotate_pairs(rows[:CONCURRENCY])
        start, cpu = time.perf_counter(), time.process_time()
        found = annotator.annotate_pairs(rows[CONCURRENCY:])
        assert len(found) == count
        return measured(count, start, cpu)


def measured(count: int, start: float, cpu: float) -> dict[str, float]:
    seconds, cpu_s = time.perf_counter() - start, time.process_time() - cpu
    return {
        "pairs": count,
        "per_second": count / seconds,
        "cpu_ms": 1e3 * cpu_s / count,
        "cpu_bound_per_second": count / cpu_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def told_template() -> Path:
    """alpaca-eval's own prompt, without importing it."""
    from importlib.util import find_spec

    found = find_spec("alpaca_eval")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "evaluators_configs/alpaca_eval_gpt4/alpaca_eval.txt"


def alone(who: str, url: str, count: int) -> dict[str, float]:
    """In a process of its own."""
    command = [sys.executable, "-m", "tests.bench.annotation", who, url, str(count)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    told: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return told


def main() -> None:
    script = ("--script", "tests.bench.annotation:rank")
    figures = {}
    with server_process("--latency", str(LATENCY_S), *script) as server:
        figures["ours, 50 ms"] = alone("ours", server.base_url, PAIRS)
        figures["alpaca-eval, 50 ms"] = alone("theirs", server.base_url, THEIR_PAIRS)
    with server_process(*script) as server:
        for count in MEMORY:
            figures[f"ours, no latency, {count:,} pairs"] = alone("ours", server.base_url, count)
    mine, other = figures["ours, 50 ms"], figures["alpaca-eval, 50 ms"]
    told = {
        "ideal_per_second": IDEAL,
        "share_of_ideal": mine["per_second"] / IDEAL,
        "times_alpaca_eval": mine["per_second"] / other["per_second"],
        "figures": figures,
    }
    Path("bench").mkdir(exist_ok=True)
    Path("bench/annotation.json").write_text(json.dumps(told, indent=1) + "\n")
    table = Table("annotation", "calls/s", "CPU ms a call", "CPU bound calls/s", "peak MiB", box=None)
    for name, row in figures.items():
        keys = ("per_second", "cpu_ms", "cpu_bound_per_second", "peak_mib")
        table.add_row(name, *(f"{row[key]:.1f}" for key in keys))
    out = Console(width=120)
    out.print(table)
    out.print(
        f"{told['share_of_ideal']:.0%} of the ideal {IDEAL:.0f}/s, "
        f"{told['times_alpaca_eval']:.1f} times alpaca-eval",
        highlight=False,
    )


if __name__ == "__main__":
    if len(sys.argv) == 4:
        run = {"ours": ours, "theirs": theirs}[sys.argv[1]]
        print(json.dumps(run(sys.argv[2], int(sys.argv[3]))))
    else:
        main()
