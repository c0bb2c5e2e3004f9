"""From `cluster.zero` to DeepSpeed's own configuration, and what it cannot do. Pure."""

from typing import Any

from alpacafarm.spec.cluster import ClusterSpec, OffloadSpec, ZeroSpec
from alpacafarm.spec.model import ModelSpec


def deepspeed_config(
    zero: ZeroSpec, *, stage: int, micro_batch: int, dtype: str, max_grad_norm: float
) -> dict[str, Any]:
    """DeepSpeed's dict for one engine.

    Accumulation is one step: the engine marks the boundary itself, so that any number of micro-batches works.
    """
    config: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": 1,
        # At stage 0 DeepSpeed clips without telling the norm; the engine does both there.
        "gradient_clipping": max_grad_norm if stage > 0 else 0.0,
        "zero_optimization": _zero_section(zero, stage),
        "zero_allow_untested_optimizer": True,
        # Offloading is done with torch's AdamW too: DeepSpeed's own compiles for minutes at first use.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 10**9,
    }
    if dtype == "bfloat16":
        config["bf16"] = {"enabled": True}
        config["data_types"] = {"grad_accum_dtype": "fp32"}
    return config


def refusals(cluster: ClusterSpec, model: ModelSpec, world: int) -> list[str]:
    """Everything in the two specs that the engine cannot do, one message each."""
    found: list[str] = []
    stage = cluster.zero_stage(world=world, dtype=model.dtype)
    if cluster.engine == "plain":
        if cluster.zero.stage not in (0, "auto"):
            found.append(
                f"cluster.zero.stage={stage} needs cluster.engine=deepspeed and cluster.engine=plain; "
                "set cluster.engine=deepspeed or cluster.zero.stage=auto"
            )
        return found
    if stage == 0 and model.dtype == "bfloat16":
        found.append(
            "cluster.zero.stage=0 with model.dtype=bfloat16 trains wrongly in DeepSpeed (it steps once on "
            "zero gradients at the start); set cluster.zero.stage to auto, 1, 2 or 3, or model.dtype=float32"
        )
    offload = cluster.zero.offload
    if offload.parameters != "none" and stage != 3:
        found.append(
            f"cluster.zero.offload.parameters={offload.parameters} needs stage 3 and the stage is {stage} "
            f"(cluster.zero.stage={cluster.zero.stage}); set cluster.zero.stage=3 "
            "or cluster.zero.offload.parameters=none"
        )
    if offload.optimizer != "none" and stage == 0:
        found.append(
            f"cluster.zero.offload.optimizer={offload.optimizer} needs stage 1, 2 or 3 and the stage is 0; "
            "set cluster.zero.stage=2 or cluster.zero.offload.optimizer=none"
        )
    if "nvme" in (offload.optimizer, offload.parameters):
        if not offload.nvme_path:
            found.append(
                "cluster.zero.offload.nvme_path=null and something is offloaded to nvme; "
                "set cluster.zero.offload.nvme_path to a folder on a local disk"
            )
        if offload.optimizer == "nvme" and stage != 3:
            found.append(
                f"cluster.zero.offload.optimizer=nvme needs stage 3 and the stage is {stage}; "
                "set cluster.zero.stage=3 or cluster.zero.offload.optimizer=cpu"
            )
    return found


def _zero_section(zero: ZeroSpec, stage: int) -> dict[str, Any]:
    section: dict[str, Any] = {"stage": stage}
    if stage == 3:
        section["stage3_param_persistence_threshold"] = zero.persistence_threshold
    for name, device in (
        ("offload_optimizer", zero.offload.optimizer),
        ("offload_param", zero.offload.parameters),
    ):
        if device != "none":
            section[name] = _offload(device, zero.offload)
    return section


def _offload(device: str, offload: OffloadSpec) -> dict[str, Any]:
    where: dict[str, Any] = {"device": device}
    if device == "nvme":
        where["nvme_path"] = offload.nvme_path
    return where
