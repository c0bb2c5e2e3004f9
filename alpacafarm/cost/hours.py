"""How long stages take on known devices: floating-point operations and bytes over what a device does of each.

Training is 6 operations for each parameter and token, 2 of them forward (Kaplan et al. 2020, section 2.1,
arXiv:2001.08361; Hoffmann et al. 2022, appendix F), 8 with gradient checkpointing, which goes forward twice;
with adapters 4 and 6, for the weights have no gradients. Attention's own operations are left out: at 500
tokens they are 2% of a 7B's. Processes share rows alike. Communication is in the utilisation; start-up,
checkpoints and queues are in nothing.

A sampled token of a batch takes as long as reading the weights and what the cache holds by then, or as
computing it, whichever is longer (Pope et al. 2022, section 2, arXiv:2211.05102).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from alpacafarm.cost.load import load_of
from alpacafarm.cost.memory import BYTES
from alpacafarm.cost.work import Pass, work_of
from alpacafarm.spec.cluster import SpeedSpec
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import Stage


@dataclass(frozen=True)
class Device:
    """Dense operations a second in each dtype, and bytes a second of its memory."""

    flops: dict[str, float]
    bandwidth: float


DEVICES = {  # NVIDIA's data sheets of the A100 80GB SXM and the H100 SXM, without sparsity
    "a100-80gb": Device({"bfloat16": 312e12, "float32": 19.5e12}, 2.039e12),
    "h100-sxm": Device({"bfloat16": 989e12, "float32": 67e12}, 3.35e12),
}


@dataclass(frozen=True)
class Duration:
    """Seconds of a stage on `gpus` devices, at most."""

    training: float
    passes: float
    sampling: float
    gpus: int

    @property
    def hours(self) -> float:
        return (self.training + self.passes + self.sampling) / 3600

    @property
    def gpu_hours(self) -> float:
        return self.hours * self.gpus


def duration(stage: Stage, spec: RunSpec, world: int) -> Duration | None:
    """None where the device, the rows or the shape of a model is not known."""
    speed = spec.cluster.speed
    work = work_of(stage, spec, world)
    if speed is None or work is None:
        return None
    if not work:
        return Duration(0.0, 0.0, 0.0, 0)
    load = load_of(stage, spec, world)
    assert load is not None
    per_second = DEVICES[speed.device].flops[spec.model.dtype] * speed.mfu * world
    factor = learning(spec)
    return Duration(
        training=sum(operations(p, factor) for p in work if p.trains) / per_second,
        passes=sum(operations(p, 2) for p in work if not p.trains and not p.samples) / per_second,
        sampling=sum(
            sampling_seconds(p, load.sampled, speed, spec.model.dtype, world) for p in work if p.samples
        ),
        gpus=world,
    )


def learning(spec: RunSpec) -> int:
    """Operations of training for each parameter and token."""
    return (4 if spec.model.lora else 6) + 2 * spec.cluster.gradient_checkpointing


def operations(one: Pass, factor: int) -> float:
    return float(factor) * one.net.parameters * one.rows * one.tokens


def sampling_seconds(one: Pass, batch: int, speed: SpeedSpec, dtype: str, world: int) -> float:
    """Batches one after the other, each: the prompts' pass, then token by token."""
    device, size, shape = DEVICES[speed.device], BYTES[dtype], one.net.shape
    share = -(-one.rows // world)
    flops = device.flops[dtype] * speed.mfu
    bandwidth = device.bandwidth * speed.bandwidth_use
    cached = 2 * shape.layers * shape.key * size * (one.tokens + one.samples / 2)  # of a row, on average
    prompts = 2 * one.net.parameters * share * one.tokens / flops
    reading = (one.net.parameters * size * -(-share // batch) + cached * share) / bandwidth
    computing = 2 * one.net.parameters * share / flops
    return prompts + one.samples * max(reading, computing)


def total_gpu_hours(durations: Sequence[Duration | None]) -> float:
    return sum(one.gpu_hours for one in durations if one is not None)


def model_lines(spec: RunSpec) -> list[str]:
    """The cost model in words, with its numbers."""
    speed = spec.cluster.speed
    if speed is None:
        return ["hours: unknown; cluster.speed says which devices there are"]
    device = DEVICES[speed.device]
    why = " of adapters" * bool(spec.model.lora) + " with checkpointing" * spec.cluster.gradient_checkpointing
    return [
        f"hours at most, on {speed.device} ({device.flops['bfloat16'] / 1e12:.0f} TFLOP/s in bfloat16, "
        f"{device.bandwidth / 1e12:.2f} TB/s): {learning(spec)} N T operations of training{why}, "
        f"2 N T of a forward pass, at {speed.mfu:.0%} of the device's; a sampled token reads weights and "
        f"cache at {speed.bandwidth_use:.0%} of its bandwidth; every row as long as it may be (cluster.speed)"
    ]
