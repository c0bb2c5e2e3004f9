"""Rows of the embedded world, made from a seed in a moment."""

import random

from alpacafarm.data.plan import WorldRows
from alpacafarm.data.rows import write_rows
from alpacafarm.ports import Context, Inputs
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Example
from alpacafarm.world.demonstrations import Quality, demonstrate
from alpacafarm.world.documents import documents
from alpacafarm.world.tasks import Split, Task, tasks

QUALITY = {
    "sft": Quality.SFT,
    "preference": Quality.SFT,  # these two for SFT on all splits only (the paper's SFT 52k)
    "unlabeled": Quality.SFT,
    "val": Quality.REFERENCE,
    "eval": Quality.REFERENCE,
}


def make(spec: WorldRows, inputs: Inputs, ctx: Context) -> None:
    """Writes `rows.jsonl`. Evaluation references are good answers, SFT demonstrations markedly mixed ones."""
    write_rows(ctx.out / "rows.jsonl", examples(spec))


def examples(spec: WorldRows) -> list[Example]:
    if spec.split == "pretrain":
        found = documents(spec.rows, spec.seed)
        return [_example("pretrain", i, task, text) for i, (task, text) in enumerate(found)]
    split: Split = spec.split  # type: ignore[assignment]  # the planner names the world's own splits
    rng = random.Random(stable_seed("demonstrations", spec.split, spec.seed))
    return [
        _example(spec.split, i, task, demonstrate(task, rng, QUALITY[spec.split]))
        for i, task in enumerate(tasks(split, spec.rows, spec.seed))
    ]


def _example(split: str, number: int, task: Task, output: str) -> Example:
    return Example(f"{split}-{number:06d}", task.instruction, task.input, output)
