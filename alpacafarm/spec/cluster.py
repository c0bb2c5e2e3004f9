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


class TaskSpec(Strict):
    """What sbatch is asked for where a stage needs no device: it moves rows, or asks a judge elsewhere."""

    partition: str | None
    cpus_per_task: int = Field(ge=1)
    memory_gb: float | None = Field(gt=0)  # of a node; null leaves it to the site
    minutes: int = Field(ge=1)


class SlurmSpec(TaskSpec):
    """What sbatch is asked for. One task for each process: on a site with GPUs one for each of these."""

    nodes: int = Field(ge=1)
    tasks_per_node: int = Field(ge=1)
    gpus_per_node: int = Field(ge=0)
    account: str | None
    qos: str | None
    constraint: str | None
    setup: list[str]  # lines of shell before the tasks start: modules, environments
    srun: list[str]  # further arguments of srun: those of a container, for example
    light: TaskSpec
    signal_s: int = Field(ge=1)  # seconds between the warning and the end of the time limit
    tries: int = Field(ge=1)  # how often one stage is put into the queue, where the site ended it
    poll_s: float = Field(gt=0)  # seconds between two looks at the queue

    @property
    def tasks(self) -> int:
        return self.nodes * self.tasks_per_node


class SpeedSpec(Strict):
    """What plans reckon hours with; nothing else reads it. Shares are of the device's own peak."""

    device: Literal["a100-80gb", "h100-sxm"]
    mfu: float = Field(gt=0, le=1)  # model FLOP utilisation
    bandwidth_use: float = Field(gt=0, le=1)  # of the memory, while sampling
    usd_per_gpu_hour: float | None = Field(ge=0)


class ClusterSpec(Strict):
    """Machine settings: processes, micro-batches, memory. A stage's key never contains them."""

    name: str
    launcher: str  # dotted path, `package.module:Class`
    # Stages at the same time. null: of one run one, of a sweep's runs as many as the cores or GPUs have room
    # for; with slurm no bound.
    at_once: Annotated[int, Field(ge=1)] | None = None
    engine: Literal["deepspeed", "plain"]
    # auto: one for each GPU here, else one; with slurm, its tasks
    processes: Annotated[int, Field(ge=1)] | Literal["auto"]
    micro_batch: int = Field(ge=1)  # rows in one forward and backward pass on one device
    generation_batch: int = Field(ge=1)  # rows sampled at once on one device
    threads: int | None = Field(ge=1)  # torch threads of one process; null leaves torch's choice
    gradient_checkpointing: bool
    checkpoint_every_s: float = Field(gt=0)  # seconds between checkpoints inside a stage
    rendezvous_timeout_s: float = Field(gt=0)
    device_memory_gb: float | None = Field(default=None, gt=0)  # GiB that a process may use; null: looked up
    speed: SpeedSpec | None = None  # null: plans tell no hours
    zero: ZeroSpec
    slurm: SlurmSpec | None = None  # for launchers.slurm alone

    def zero_stage(self, *, world: int, dtype: str) -> int:
        """The ZeRO stage that `auto` stands for."""
        if self.zero.stage != "auto":
            return self.zero.stage
        return 0 if world == 1 and dtype == "float32" and self.zero.offload.optimizer == "none" else 2
