"""The loop of collect, then update: everything that learns from its own samples."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from alpacafarm.engine.schedule import learning_rate
from alpacafarm.ports import Context, Engine, LossFn, Update
from alpacafarm.spec.method import OnPolicySpec
from alpacafarm.text.collate import Batch
from alpacafarm.training.checkpoint import Checkpoints, Snapshots

log = logging.getLogger(__name__)

B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class Collected(Generic[B]):
    """What one step trains on: `updates[k]` are this rank's micro-batches of the k-th optimiser step."""

    updates: Sequence[Sequence[B]]
    metrics: Mapping[str, float]


def improve(
    engine: Engine,
    collect: Callable[[int, dict[str, Any]], Collected[B]],
    loss: LossFn[B],
    *,
    spec: OnPolicySpec,
    ctx: Context,
) -> None:
    """`spec.steps` rounds of `collect(step, state)` and the updates it asks for.

    `state` is the method's own between steps (an adaptive KL coefficient): plain JSON values, kept in
    checkpoints. The learning rate is constant within a step. Logs the collection's metrics and the mean of
    each update's. Ends early, before its update, at the first step whose `kl`, in nats per response, is above
    `spec.kl_budget`. Records how many `steps` were made.
    """
    steps, optim = spec.steps, spec.optim
    checkpoints = Checkpoints(engine, ctx)
    snapshots = Snapshots(engine, ctx, spec.snapshot_every)
    made = steps
    start, state = checkpoints.restore()
    with ctx.progress(steps, spec.name) as bar:
        bar.advance(start)
        for step in range(start, steps):
            lr = learning_rate(
                step, steps, peak=optim.lr, schedule=optim.schedule, warmup_fraction=optim.warmup_fraction
            )
            collected = collect(step, state)
            if spec.kl_budget is not None and collected.metrics["kl"] > spec.kl_budget:
                log.info("%s: ends at step %d, for its KL is above kl_budget", spec.name, step)
                made = step
                break
            updates: list[Update] = []
            with ctx.meter.phase("train"):
                for batches in collected.updates:
                    updates.append(engine.update(batches, loss, lr=lr))
            for batches in collected.updates:
                ctx.meter.count(
                    tokens=sum(b.real_tokens for b in batches),
                    computed=sum(b.computed_tokens for b in batches),
                )
            ctx.track.log(step + 1, {"lr": lr, **collected.metrics, **mean_metrics(updates)})
            bar.advance(step + 1, f"reward {collected.metrics.get('reward/mean', float('nan')):.3f}")
            if step + 1 < steps:
                snapshots.save_if_due(step + 1)
                checkpoints.save_if_due(step + 1, state)
    ctx.record(steps=made)


def mean_metrics(updates: Sequence[Update]) -> dict[str, float]:
    """The mean over a step's updates of `loss`, `grad_norm` and each metric."""
    rows = [{"loss": u.loss, "grad_norm": u.grad_norm, **u.metrics} for u in updates]
    return {name: sum(row[name] for row in rows) / len(rows) for name in (rows[0] if rows else {})}
