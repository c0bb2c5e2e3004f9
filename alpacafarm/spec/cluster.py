"""`cluster`: where stages run and how they are cut up. Nothing here may change a result."""

from typing import Literal

from pydantic import Field, model_validator

from alpacafarm.spec.base import Strict


class OffloadSpec(Strict):
    """Where ZeRO keeps optimiser states and (stage 3) parameters."""

    optimizer: Literal["none", "cpu", "nvme"]
    parameters: Literal["none", "cpu", "nvme"]
    nvme_path: str | None

    @model_validator(mode="after")
    def nvme_needs_a_path(self) -> "OffloadSpec":
        if "nvme" in (self.optimizer, self.parameters) and not self.nvme_path:
            raise ValueError(
                "nvme_path=null: offloading to nvme needs a folder on a local disk; set nvme_path"
            )
        return self


class ZeroSpec(Strict):
    """DeepSpeed ZeRO (Rajbhandari et al. 2020). `auto` is 0 on one float32 process and 2 otherwise."""

    stage: Literal[0, 1, 2, 3, "auto"]
    offload: OffloadSpec
    persistence_threshold: int = Field(ge=0)  # stage 3 keeps parameters smaller than this whole

    @model_validator(mode="after")
    def offload_needs_a_stage(self) -> "ZeroSpec":
        if self.offload.parameters != "none" and self.stage != 3:
            raise ValueError(
                f"offload.parameters={self.offload.parameters} needs stage=3 and stage={self.stage}; set stage=3"
            )
        if self.offload.optimizer != "none" and self.stage == 0:
            raise ValueError(
                f"offload.optimizer={self.offload.optimizer} needs stage 1, 2 or 3 and stage=0; set stage=2"
            )
        return self


class ClusterSpec(Strict):
    """Machine settings: processes, micro-batches, memory. A stage's key never contains them."""

    name: str
    launcher: str  # dotted path, `package.module:Class`
    engine: Literal["deepspeed", "plain"]
    processes: int | Literal["auto"]  # auto: one for each GPU of this machine, else one
    micro_batch: int = Field(ge=1)  # rows in one forward and backward pass on one device
    generation_batch: int = Field(ge=1)  # rows sampled at once on one device
    threads: int | None = Field(ge=1)  # torch threads of one process; null leaves torch's choice
    gradient_checkpointing: bool
    checkpoint_every_s: float = Field(gt=0)  # seconds between checkpoints inside a stage
    rendezvous_timeout_s: float = Field(gt=0)
    zero: ZeroSpec

    @model_validator(mode="after")
    def at_least_one_process(self) -> "ClusterSpec":
        if isinstance(self.processes, int) and self.processes < 1:
            raise ValueError(f"processes={self.processes} must be 1 or more, or 'auto'")
        return self

    def zero_stage(self, *, world: int, dtype: str) -> int:
        """The ZeRO stage that `auto` stands for."""
        if self.zero.stage != "auto":
            return self.zero.stage
        return 0 if world == 1 and dtype == "float32" and self.zero.offload.optimizer == "none" else 2
