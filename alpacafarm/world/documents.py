"""What the base model is pretrained on: requests and answers as one finds them on the web."""

import random
from collections.abc import Iterator

from alpacafarm.world.demonstrations import Quality, demonstrate
from alpacafarm.world.tasks import Task, tasks


def documents(n: int, seed: int) -> Iterator[tuple[Task, str]]:
    """`n` tasks, none of them held out, each with an answer of web quality."""
    rng = random.Random(f"documents-{seed}")
    for task in tasks("pretrain", n, seed):
        yield task, demonstrate(task, rng, Quality.WEB)
