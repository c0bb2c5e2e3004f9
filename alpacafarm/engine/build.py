"""Which engine a model gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from alpacafarm.spec.cluster import ClusterSpec
from alpacafarm.spec.method import OptimSpec

if TYPE_CHECKING:
    from torch import nn

    from alpacafarm.engine.step import Export
    from alpacafarm.ports import Dist, Engine


def build_engine(
    kind: Literal["deepspeed", "plain"],
    module: nn.Module,
    optim: OptimSpec | None,
    *,
    cluster: ClusterSpec,
    dtype: str,
    dist: Dist,
    export: Export | None = None,
) -> Engine:
    """An engine on this process's device. Frozen models (`optim=None`) need DeepSpeed only at stage 3."""
    from alpacafarm.engine.dist import local_device
    from alpacafarm.engine.plain import PlainEngine

    stage = cluster.zero_stage(world=dist.world, dtype=dtype)
    checkpointing = cluster.gradient_checkpointing
    if kind == "plain" or (optim is None and stage < 3):
        return PlainEngine(
            module,
            optim,
            device=local_device(),
            dist=dist,
            export=export,
            gradient_checkpointing=checkpointing,
        )
    from alpacafarm.engine.deepspeed import DeepSpeedEngine
    from alpacafarm.engine.zero import deepspeed_config

    config = deepspeed_config(
        cluster.zero,
        stage=stage,
        micro_batch=cluster.micro_batch,
        dtype=dtype,
        max_grad_norm=0.0 if optim is None else optim.max_grad_norm,
    )
    return DeepSpeedEngine(
        module,
        optim,
        config=config,
        device=local_device(),
        dist=dist,
        export=export,
        gradient_checkpointing=checkpointing,
    )
