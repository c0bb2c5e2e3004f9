"""The loop over fixed data: SFT, reward models and everything that trains on pairs."""

from typing import TypeVar

from alpacafarm.engine.schedule import learning_rate
from alpacafarm.errors import SpecError
from alpacafarm.ports import Context, Engine, LossFn
from alpacafarm.spec.method import OptimSpec
from alpacafarm.text.collate import Batch
from alpacafarm.training.batches import StepSequence
from alpacafarm.training.checkpoint import Checkpoints, Snapshots

B = TypeVar("B", bound=Batch)


def fit(
    engine: Engine,
    steps: StepSequence[B],
    loss: LossFn[B],
    *,
    optim: OptimSpec,
    ctx: Context,
    label: str,
    snapshot_every: int | None = None,
) -> None:
    """One optimiser step for each of `steps`, resumed from the last checkpoint of this stage.

    Logs `loss`, `lr`, `grad_norm` (before clipping) and what `loss` measures, each a mean over the
    global weight. Records how many `steps` were made.
    """
    if not len(steps):
        raise SpecError(
            f"{label}: no row is left to train on; give more rows, or raise model.max_prompt_tokens where "
            "prompts were dropped for their length"
        )
    checkpoints = Checkpoints(engine, ctx)
    snapshots = Snapshots(engine, ctx, snapshot_every)
    start, _ = checkpoints.restore()
    with ctx.progress(len(steps), label) as bar:
        bar.advance(start)
        for step in range(start, len(steps)):
            lr = learning_rate(
                step,
                len(steps),
                peak=optim.lr,
                schedule=optim.schedule,
                warmup_fraction=optim.warmup_fraction,
            )
            with ctx.meter.phase("train"):
                batches = steps[step]
                update = engine.update(batches, loss, lr=lr)
            ctx.meter.count(
                tokens=sum(b.real_tokens for b in batches),
                samples=sum(b.rows for b in batches),
                computed=sum(b.computed_tokens for b in batches),
            )
            ctx.track.log(
                step + 1, {"loss": update.loss, "lr": lr, "grad_norm": update.grad_norm, **update.metrics}
            )
            bar.advance(step + 1, f"loss {update.loss:.3f}")
            if step + 1 < len(steps):
                snapshots.save_if_due(step + 1)
                checkpoints.save_if_due(step + 1)
    ctx.record(steps=len(steps))
