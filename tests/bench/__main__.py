"""`make bench`: what the framework costs beside hand-written loops on the same batches, as ratios of one run.

Both sides of a ratio are timed in turn, several times, and the median is taken: these figures are meant to be
compared within a run, not between machines. Writes bench/speed.json.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from alpacafarm.data.plan import WorldRows
from alpacafarm.data.world import examples
from alpacafarm.engine.build import build_engine
from alpacafarm.engine.dist import SingleProcess
from alpacafarm.methods.sft import negative_log_likelihood
from alpacafarm.models import heads, load
from alpacafarm.rollout.hf import sample
from alpacafarm.spec.cluster import ClusterSpec, OffloadSpec, ZeroSpec
from alpacafarm.spec.method import OptimSpec
from alpacafarm.spec.model import ArchitectureSpec, Sampling
from alpacafarm.text.collate import Tokens, collate
from alpacafarm.text.tokenise import encode_rows
from alpacafarm.text.train_tokenizer import train_tokenizer
from alpacafarm.training.batches import deal
from tests.bench import annotation, memory, sweeps

ROUNDS = 7
WORLD = ArchitectureSpec(
    vocab_size=1024, hidden_size=128, layers=3, heads=4, ff_size=384, max_positions=256, tie_embeddings=True
)
OPTIM = OptimSpec(
    lr=1e-4,
    batch_size=64,
    schedule="constant",
    warmup_fraction=0.0,
    betas=[0.9, 0.999],
    eps=1e-8,
    weight_decay=0.0,
    max_grad_norm=1.0,
)


def cluster(micro_batch: int) -> ClusterSpec:
    zero = ZeroSpec(
        stage="auto",
        offload=OffloadSpec(optimizer="none", parameters="none", nvme_path=None),
        persistence_threshold=100_000,
    )
    return ClusterSpec(
        name="bench",
        launcher="launchers.inline:Inline",
        engine="deepspeed",
        processes=1,
        micro_batch=micro_batch,
        generation_batch=256,
        threads=None,
        gradient_checkpointing=False,
        checkpoint_every_s=1e9,
        rendezvous_timeout_s=60,
        zero=zero,
    )


def in_turn(ours: Callable[[], object], theirs: Callable[[], object]) -> tuple[float, float, float]:
    """Median seconds of each, and the median of the ratios pair by pair, after one warm-up."""
    pairs = []
    for turn in range(ROUNDS + 1):
        times = []
        for run in (ours, theirs):
            start = time.perf_counter()
            run()
            times.append(time.perf_counter() - start)
        if turn:
            pairs.append(times)
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def hand_written_step(policy: Any, rows: Sequence[Tokens], pad_id: int) -> Callable[[], None]:
    """The loop one would write first: one padded batch, labels of -100, the model's own loss, AdamW."""
    optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-4)
    batch = collate(rows, pad_id)
    labels = batch.input_ids_BL.masked_fill(batch.attention_BL == 0, -100)
    for row, start in enumerate(batch.start_B.tolist()):
        labels[row, :start] = -100

    def step() -> None:
        loss = policy(input_ids=batch.input_ids_BL, attention_mask=batch.attention_BL, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def bench_training(rows: Sequence[Tokens], tokenizer: Any, micro_batch: int) -> dict[str, float]:
    """An SFT update of 64 rows through DeepSpeed against the hand-written step on the same rows."""
    pad_id = tokenizer.pad_token_id
    batch = list(rows[: OPTIM.batch_size])
    theirs = load.build_policy(WORLD, tokenizer, seed=0).train()
    module = heads.LanguageModel(load.build_policy(WORLD, tokenizer, seed=0))
    engine = build_engine(
        "deepspeed", module, OPTIM, cluster=cluster(micro_batch), dtype="float32", dist=SingleProcess()
    )
    loss = negative_log_likelihood(engine)
    lengths = [row.length for row in batch]

    def ours() -> None:
        cut = deal(range(len(batch)), lengths, micro_batch=micro_batch, rank=0, world=1)
        engine.update([collate([batch[i] for i in part], pad_id) for part in cut], loss, lr=1e-4)

    mine, other, ratio = in_turn(ours, hand_written_step(theirs, batch, pad_id))
    tokens = sum(lengths)
    return {"seconds": mine, "baseline_seconds": other, "ratio": ratio, "tokens_per_second": tokens / mine}


def bench_sampling(rows: Sequence[Tokens], tokenizer: Any) -> dict[str, float]:
    """256 responses of at most 64 tokens against `generate(do_sample=True)` in one padded batch."""
    policy = load.build_policy(WORLD, tokenizer, seed=0)
    prompts = [row.prompt for row in rows[:256]]
    sampling = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=64)
    longest = max(map(len, prompts))
    ids = torch.tensor([[tokenizer.pad_token_id] * (longest - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    made: list[int] = []

    def ours() -> None:
        found = sample(
            policy,
            prompts,
            sampling,
            seeds=range(len(prompts)),
            pad_id=tokenizer.pad_token_id,
            eos_ids=[tokenizer.eos_token_id],
            batch_size=256,
        )
        made.append(sum(map(len, found.responses)))

    def theirs() -> None:
        policy.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            top_k=0,
            max_new_tokens=64,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )

    mine, other, ratio = in_turn(ours, theirs)
    return {
        "seconds": mine,
        "baseline_seconds": other,
        "ratio": ratio,
        "tokens_per_second": statistics.median(made) / mine,
    }


def bench_cached_run(home: Path) -> dict[str, float]:
    """A whole run whose stages are all in the store, against `action=plan` of the same."""
    base = [sys.executable, "-m", "alpacafarm.run", "recipe=smoke", f"store={home / 'store'}"]

    def run(*extra: str) -> Callable[[], object]:
        def call() -> object:
            command = [*base, f"hydra.run.dir={home / 'run'}", *extra]
            return subprocess.run(command, check=True, capture_output=True, env={**os.environ})

        return call

    run()()
    cached, plan, ratio = in_turn(run(), run("action=plan"))
    return {"seconds": cached, "baseline_seconds": plan, "ratio": ratio}


def main() -> None:
    demonstrations = examples(WorldRows(split="sft", rows=512, seed=0))
    tokenizer = train_tokenizer((f"{r.instruction} {r.output}" for r in demonstrations), WORLD.vocab_size)
    rows = encode_rows(tokenizer, "short", demonstrations)
    figures = {
        f"SFT update of 64 rows, micro-batch {size}, against a hand-written loop": bench_training(
            rows, tokenizer, size
        )
        for size in (8, 16, 32, 64)
    }
    figures["sampling 256 responses, against generate"] = bench_sampling(rows, tokenizer)
    with tempfile.TemporaryDirectory() as home:
        figures["a run with everything in the store, against action=plan"] = bench_cached_run(Path(home))
    told = {"threads": torch.get_num_threads(), "torch": torch.__version__, "figures": figures}
    Path("bench").mkdir(exist_ok=True)
    Path("bench/speed.json").write_text(json.dumps(told, indent=1) + "\n")
    table = Table("what", "seconds", "baseline", "ratio", "tokens/s", box=None)
    for name, row in figures.items():
        rate = row.get("tokens_per_second")
        cells = [f"{row[key]:.3f}" for key in ("seconds", "baseline_seconds", "ratio")]
        table.add_row(name, *cells, f"{rate:,.0f}" if rate else "")
    Console(width=120).print(table)
    annotation.main()
    sweeps.main()
    memory.main()


if __name__ == "__main__":
    main()
