"""The memory that a plan states, beside what stages take: python -m tests.bench.memory [WORD ...]

Every case is a stage of a real run, in processes of its own, on random models of 63 and 133 million
parameters and rows that fill every position. What was resident at most counts, the interpreter included.
Words choose the cases that have one of them in their names. Writes bench/memory.json.

The C library is told to give large blocks back as soon as they are free (MALLOC_MMAP_THRESHOLD_), as a GPU's
peak counts them. Without that a process keeps more than is in use: the last case shows how much.
"""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from alpacafarm import commandline, run
from alpacafarm.cost.fit import needs
from alpacafarm.spec.cluster import ClusterSpec
from launchers.local import Local

PROMPT, RESPONSE = 64, 192  # tokens of every row
WORDS = ("north", "river", "seven", "paper", "green", "window", "music", "stone")
THRESHOLD = ("MALLOC_MMAP_THRESHOLD_", str(2**18))  # bytes
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    | {"vocab_size": 512},
    "63M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8, "num_attention_heads": 12}
    | {"vocab_size": 8192, "tie_word_embeddings": True},
    "133M": {
        "hidden_size": 1024,
        "intermediate_size": 2816,
        "num_hidden_layers": 6,
        "num_attention_heads": 16,
    }
    | {"num_key_value_heads": 4, "vocab_size": 32000},
}


class Apart(Local):
    """Every stage in a process of its own, whose peak is that of nothing else."""

    def __init__(self, cluster: ClusterSpec, world: int = 1) -> None:
        super().__init__(cluster, world, subprocesses=True)


@dataclass(frozen=True)
class Case:
    """`stage` of the run of `overrides` is measured. `heap`: as the C library has it."""

    name: str
    size: str
    stage: str
    overrides: str
    heap: bool = False


def sft(name: str, size: str = "63M", *, rows: int = 4, more: str = "", heap: bool = False) -> Case:
    told = f"method=sft method.epochs=2 method.optim.batch_size={rows} cluster.micro_batch=4 {more}"
    return Case(name, size, "sft", told, heap)


def pairs(method: str, more: str = "") -> Case:
    told = f"method={method} method.epochs=1 method.optim.batch_size=4 cluster.micro_batch=2 {more}"
    return Case(method, "63M", method, told)


def ppo(name: str, more: str = "") -> Case:
    told = (
        "method=ppo method.steps=2 method.rollouts_per_step=8 method.optim.batch_size=8 "
        f"cluster.micro_batch=4 method.epochs_per_rollout=1 given.rm={{reward}} "
        f"method.sampling.max_new_tokens={RESPONSE} {more}"
    )
    return Case(name, "63M", "ppo", told)


LORA = "model.lora={rank:8,alpha:16,dropout:0.0,targets:all-linear,export:merged}"
TWO = "cluster.processes=2 cluster.zero.stage="
CASES = [
    sft("process alone", "tiny"),
    sft("sft"),
    sft("sft, two micro-batches", rows=8),
    sft("sft, checkpointing", rows=8, more="cluster.gradient_checkpointing=true"),
    sft("sft, bfloat16 (ZeRO-2)", more="model.dtype=bfloat16"),
    sft("sft", "133M"),
    sft("sft, LoRA", "133M", more=LORA),
    pairs("rm", "method.held_out=0"),
    pairs("dpo"),
    ppo("ppo"),
    Case(
        "sampling",
        "133M",
        "sample 8",
        f"method=best_of_n given.rm={{reward}} method.n=8 method.sampling.max_new_tokens={RESPONSE} "
        "cluster.generation_batch=64",
    ),
    sft("sft, ZeRO-2 on one", more="cluster.zero.stage=2"),
    sft("sft, ZeRO-3 on one", more="cluster.zero.stage=3"),
    *(sft(f"sft, ZeRO-{stage} on two", rows=8, more=f"{TWO}{stage}") for stage in (0, 1, 2, 3)),
    ppo("ppo, ZeRO-3 on two", f"{TWO}3"),
    sft("sft, the C library's own heap", heap=True),
]


def of_tokens(tokenizer: Any, count: int) -> str:
    """Words of at least `count` tokens."""
    words: list[str] = []
    while len(tokenizer(" ".join(words))["input_ids"]) < count:
        words.append(WORDS[len(words) % len(WORDS)])
    return " ".join(words)


def write_model(folder: Path, size: str) -> Any:
    """A random Llama, a reward model of its shape and their tokenizer, which is returned."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

    from alpacafarm.text.train_tokenizer import train_tokenizer

    tokenizer = train_tokenizer([" ".join(WORDS)], 300)
    torch.manual_seed(0)
    config = LlamaConfig(**SIZES[size], max_position_embeddings=1024, num_labels=1)
    for place, kind in ((folder, LlamaForCausalLM), (folder / "reward", LlamaForSequenceClassification)):
        kind(config).save_pretrained(str(place))
        tokenizer.save_pretrained(str(place))
    return tokenizer


def write_rows(folder: Path, tokenizer: Any, count: int = 8) -> None:
    """Prompts that just fit, and responses that are cut."""
    long, short = of_tokens(tokenizer, RESPONSE + 8), of_tokens(tokenizer, PROMPT - 32)
    rows, judged = [], []
    for i in range(count):
        row = {"instruction": f"{short} {i}", "input": ""}
        rows.append({**row, "output": f"{i} {long}"})
        judged.append(
            {**row, "output_1": f"{i} {long}", "output_2": f"no {i} {long}", "preference": 1 + i % 2}
        )
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "pairs.json").write_text(json.dumps(judged))


def command(case: Case, home: Path, number: int) -> list[str]:
    model, rows = home / case.size, home / "rows.json"
    return [
        *case.overrides.replace("{reward}", str(model / "reward")).split(),
        *("model=path", f"model.path={model}", "model.prompt=short", "data=files", "feedback=human"),
        *(f"model.max_prompt_tokens={PROMPT}", f"model.max_response_tokens={RESPONSE}"),
        *(f"data.{split}={rows}" for split in ("sft", "unlabeled", "eval")),
        f"data.preferences={home / 'pairs.json'}",
        *("eval=none", f"store={home / 'stores' / str(number)}", "force=true"),
        *(() if case.stage == "sft" else (f"given.sft={model}",)),
        "cluster.launcher=tests.bench.memory:Apart",
    ]


def compared(case: Case, home: Path, number: int) -> dict[str, Any]:
    """Estimate and measurement, in bytes of the process that took most."""
    overrides = command(case, home, number)
    problems: list[str] = []
    with commandline.configs():
        cfg, choices = commandline.composed(overrides, problems)
        run.refuse(problems)
        job = run.prepared(cfg, overrides, choices)
    (stage,) = (stage for stage in job.plan.stages if stage.name == case.stage)
    (need,) = needs(job.spec, [stage], job.world)
    folder = home / "runs" / str(number)
    folder.mkdir(parents=True)
    with heap(own=case.heap):
        report = run.perform(job, folder)
    (made,) = (s for s in report.result.stages if s.name == case.stage)
    manifest = json.loads((Path(made.folder) / "artifact.json").read_text())
    return {
        "estimate": need.estimate.total,
        "parts": dict(need.estimate.parts),
        "moment": need.estimate.moment,
        "measured": manifest["throughput"]["peak_memory_bytes"],
        "seconds": manifest["seconds"],
    }


@contextmanager
def heap(*, own: bool) -> Iterator[None]:
    name, value = THRESHOLD
    if not own:
        os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name, None)


def main(words: Sequence[str] = ()) -> None:
    logging.disable(logging.INFO)
    chosen = [c for c in CASES if not words or any(word in f"{c.size} {c.name}" for word in words)]
    figures = {}
    table = Table("stage", "model", "estimate, MiB", "measured", "difference", "most at", box=None)
    with tempfile.TemporaryDirectory() as place:
        home = Path(place)
        for size in dict.fromkeys(case.size for case in chosen):
            write_rows(home, write_model(home / size, size))
        for number, case in enumerate(chosen):
            found = compared(case, home, number)
            figures[f"{case.name}, {case.size}"] = found
            estimate, measured = found["estimate"], found["measured"]
            cells = (f"{estimate / 2**20:.0f}", f"{measured / 2**20:.0f}", f"{estimate / measured - 1:+.1%}")
            table.add_row(case.name, case.size, *cells, found["moment"])
            print(case.name, case.size, *cells, f"{found['seconds']:.0f} s", file=sys.stderr, flush=True)
    Path("bench").mkdir(exist_ok=True)
    Path("bench/memory.json").write_text(json.dumps(figures, indent=1) + "\n")
    Console(width=120).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
