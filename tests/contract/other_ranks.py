"""Stages that are stopped on two ranks and go on on other numbers of them, for `test_other_ranks`."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from alpacafarm.methods import ppo, sft
from alpacafarm.pipeline.context import StageContext
from alpacafarm.ports import Dist
from alpacafarm.preemption import Preempted
from alpacafarm.rollout import decode, shards
from alpacafarm.spec.model import Sampling
from alpacafarm.training import checkpoint
from tests.contract.stage_scenarios import BATCH, cluster
from tests.unit.methods.conftest import Tiny, at, optim
from tests.unit.methods.test_ppo import inputs, spec

STOP = {"sft": 6, "ppo": 2}  # steps, of 12 and 4
Train = Callable[[StageContext], None]


def trainings(tiny: Tiny) -> dict[str, Train]:
    # As in stage_scenarios: Adam amplifies what rounding leaves of gradients near zero.
    even = optim(1e-3, BATCH).model_copy(update={"eps": 1e-4})
    tuning = sft.TrainSpec(epochs=3, optim=even)
    learning = spec(
        optim=even.model_copy(update={"batch_size": 8}),
        steps=4,
        adaptive_kl=ppo.AdaptiveKL(target=0.01, k_beta=0.5),
    )
    return {
        "sft": lambda ctx: sft.train(tuning, {"init": tiny.policy, "rows": tiny.rows}, ctx),
        "ppo": lambda ctx: ppo.train(learning, inputs(tiny), ctx),
    }


def sample(tiny: Tiny, ctx: StageContext) -> None:
    told = decode.DecodeSpec(
        n=2,
        sampling=Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=8),
        stream="policy",
        prompts=None,
    )
    with mock.patch.object(shards, "SHARD", 5):
        decode.decode(told, {"policy": tiny.policy, "rows": tiny.rows}, ctx)


def context(tiny: Tiny, dist: Dist, name: str, stage: int | None) -> StageContext:
    return tiny.context(name, cluster=cluster(stage), dist=dist)


def begin(dist: Dist, home: str) -> None:
    """Each undisturbed, under `<name>-<stage>`, and stopped half-way, under `stopped-<name>-<stage>`."""
    tiny = at(Path(home))
    for name, stage in [("sft", 0), ("sft", 2), ("sft", 3), ("ppo", 2)]:
        train = trainings(tiny)[name]
        run(train, context(tiny, dist, f"{name}-{stage}", stage))
        warned = [step == STOP[name] for step in range(1, 13)]
        stopped = context(tiny, dist, f"stopped-{name}-{stage}", stage)
        with mock.patch.object(checkpoint, "is_warned", side_effect=warned), pytest.raises(Preempted):
            run(train, stopped)
    run(lambda ctx: sample(tiny, ctx), context(tiny, dist, "sample", None))
    killed = context(tiny, dist, "stopped-sample", None)
    write, written = shards.write, []

    def write_so_many(*told: Any) -> None:
        """Rank 0 gets two shards done, rank 1 a single one."""
        if len(written) == 2 - dist.rank:
            raise KeyboardInterrupt
        written.append(write(*told))

    with mock.patch.object(shards, "write", write_so_many), pytest.raises(KeyboardInterrupt):
        run(lambda ctx: sample(tiny, ctx), killed)
    dist.barrier()


def go_on(dist: Dist, home: str, names: list[str]) -> list[dict[str, Any]]:
    """The stopped ones from copies, under `<name>-on-<ranks>`: what they recorded, and samples counted."""
    tiny = at(Path(home))
    found = []
    for name in names:
        here = f"{name}-on-{dist.world}"
        if dist.rank == 0:
            shutil.copytree(tiny.home / f"stopped-{name}", tiny.home / here)
        dist.barrier()
        method, _, stage = name.partition("-")
        ctx = context(tiny, dist, here, int(stage) if stage else None)
        run(trainings(tiny).get(method, lambda ctx: sample(tiny, ctx)), ctx)
        (samples,) = dist.total([ctx.meter.state()["samples"]])
        found.append({**ctx.facts, "samples": samples})
    return found


def run(train: Train, ctx: StageContext) -> None:
    try:
        train(ctx)
    finally:
        ctx.track.close()
    ctx.dist.barrier()
