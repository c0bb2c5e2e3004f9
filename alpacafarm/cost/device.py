"""The memory that a process of a stage may use, found without torch."""

from dataclasses import dataclass
from pathlib import Path

from alpacafarm.spec.cluster import ClusterSpec
from launchers.gpus import gpu_memory_bytes, visible_gpus

GIB = 2**30


@dataclass(frozen=True)
class Available:
    """Bytes, and in words where the number is from."""

    size: int
    source: str


def processes(cluster: ClusterSpec) -> int:
    """`cluster.processes`; `auto` is one for each visible GPU, else one, and with SLURM its tasks."""
    if cluster.processes != "auto":
        return cluster.processes
    return cluster.slurm.tasks if cluster.slurm else max(1, len(visible_gpus()))


def on_gpu(cluster: ClusterSpec) -> bool:
    return cluster.slurm.gpus_per_node > 0 if cluster.slurm else bool(visible_gpus())


def available(cluster: ClusterSpec, world: int) -> Available | None:
    """For one process; None where nobody says how much there is."""
    if cluster.device_memory_gb is not None:
        told = f"cluster.device_memory_gb={cluster.device_memory_gb:g}"
        return Available(round(cluster.device_memory_gb * GIB), told)
    if cluster.slurm is not None:
        if cluster.slurm.gpus_per_node or cluster.slurm.memory_gb is None:
            return None
        share = cluster.slurm.memory_gb / cluster.slurm.tasks_per_node
        told = f"cluster.slurm.memory_gb={cluster.slurm.memory_gb:g} for {cluster.slurm.tasks_per_node} tasks"
        return Available(round(share * GIB), told)
    if on_gpu(cluster):
        size = gpu_memory_bytes()
        return None if size is None else Available(size, "the memory of the smallest GPU here")
    size = free_bytes()
    if size is None:
        return None
    return Available(size // world, "what is free on this machine" + f" for {world} processes" * (world > 1))


def free_bytes() -> int | None:
    """What processes of this machine can still take, of a container what its limit leaves. Linux only."""
    try:
        told = Path("/proc/meminfo").read_text()
        free = int(told.partition("MemAvailable:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        return None
    limit, used = (_number(Path("/sys/fs/cgroup") / name) for name in ("memory.max", "memory.current"))
    return free if limit is None or used is None else min(free, max(0, limit - used))


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # "max": no limit
        return None
