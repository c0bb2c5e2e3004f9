"""`cluster`: where stages run and how they are cut up. Nothing here may change a result.

What an engine cannot do with these settings it says itself: `alpacafarm.engine.zero.refusals`.
"""

from typing import Annotated, Literal

from pydantic import Field

from alpacafarm.spec.base import Strict


class OffloadSpec(Strict):
    """Where ZeRO keeps optimiser states and (stage 3) parameters."""

    optimizer: Literal["none", "cpu", "nvme"]
    parameters: Literal["none", "cpu", "nvme"]
    nvme_path: str | None


class ZeroSpec(Strict):
    """DeepSpeed ZeRO (Rajbhandari et al. 2020). `auto` is 0 on one float32 process and 2 otherwise."""

    stage: Literal[0, 1, 2, 3, "auto"]
    offload: OffloadSpec
    persistence_threshold: int = Field(ge=0)  # stage 3 keeps parameters smaller than this whole


class ClusterSpec(Strict):
    """Machine settings: processes, micro-batches, memory. A stage's key never contains them."""

    name: str
    launcher: str  # dotted path, `package.module:Class`
    engine: Literal["deepspeed", "plain"]
    processes: Annotated[int, Field(ge=1)] | Literal["auto"]  # auto: one for each GPU here, else one
    micro_batch: int = Field(ge=1)  # rows in one forward and backward pass on one device
    generation_batch: int = Field(ge=1)  # rows sampled at once on one device
    threads: int | None = Field(ge=1)  # torch threads of one process; null leaves torch's choice
    gradient_checkpointing: bool
    checkpoint_every_s: float = Field(gt=0)  # seconds between checkpoints inside a stage
    rendezvous_timeout_s: float = Field(gt=0)
    zero: ZeroSpec

    def zero_stage(self, *, world: int, dtype: str) -> int:
        """The ZeRO stage that `auto` stands for."""
        if self.zero.stage != "auto":
            return self.zero.stage
        return 0 if world == 1 and dtype == "float32" and self.zero.offload.optimizer == "none" else 2
