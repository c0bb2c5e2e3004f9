"""The processes of one stage: who they are, their sums and barriers, and their random states."""

import atexit
import os
import random
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as torch_dist
from torch.distributed import HashStore, rendezvous  # type: ignore[attr-defined]

from alpacafarm.engine.single import SingleProcess as SingleProcess
from alpacafarm.errors import StageError
from alpacafarm.ports import Dist

# One rank may work for hours (judge calls, an export) while the others wait at a barrier. A rank that dies is
# noticed by the launcher and by its closed connections, not by this limit.
COLLECTIVE_TIMEOUT = timedelta(hours=24)


class TorchDist:
    """`torch.distributed`. Host values travel over gloo, whatever the tensors of the engines travel over."""

    def __init__(self, group: torch_dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.rank = torch_dist.get_rank()
        self.world = torch_dist.get_world_size()

    def total(self, values: Sequence[float]) -> list[float]:
        sums = torch.tensor(list(values), dtype=torch.float64)
        torch_dist.all_reduce(sums, group=self.group)
        return [float(value) for value in sums]

    def gather(self, value: Any) -> list[Any]:
        values: list[Any] = [None] * self.world
        torch_dist.all_gather_object(values, value, group=self.group)
        return values

    def broadcast(self, value: Any) -> Any:
        values = [value]
        torch_dist.broadcast_object_list(values, src=0, group=self.group, device=torch.device("cpu"))
        return values[0]

    def barrier(self) -> None:
        torch_dist.barrier(group=self.group)


def local_device() -> torch.device:
    """This process's accelerator, chosen by LOCAL_RANK, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def connect(timeout_s: float) -> Dist:
    """Joins the processes that the launcher started (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT).

    Without RANK, or with one process, nothing is joined. `timeout_s` is how long all ranks may take to
    arrive.
    """
    device = local_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return SingleProcess()
    _join(timeout_s)
    group = (
        torch_dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT) if device.type == "cuda" else None
    )
    return TorchDist(group)


def ensure_group() -> None:
    """A process group of one for DeepSpeed, which insists on one and on LOCAL_RANK. It needs no port."""
    os.environ.setdefault("LOCAL_RANK", "0")
    if not torch_dist.is_initialized():
        torch_dist.init_process_group(_backend(), store=HashStore(), rank=0, world_size=1)
        atexit.register(_leave)


def disconnect() -> None:
    """Waits for all ranks and leaves them. Without it, exits were seen to abort.

    A group of one stays until the process ends: DeepSpeed keeps hold of it, and the next stage may need it.
    """
    if torch_dist.is_initialized() and torch_dist.get_world_size() > 1:
        torch_dist.barrier()
        _leave()


def is_peer_lost(error: RuntimeError) -> bool:
    """Whether a collective failed because another rank, or the way to it, is gone."""
    # gloo has no class of its own for it, but names its source file: "[...]/gloo/transport/tcp/pair.cc:553]".
    return isinstance(error, torch_dist.DistError) or "gloo/transport/" in str(error)


def seed_everything(seed: int) -> None:
    """Python's and torch's global generators. Only dropout draws from them; samplers take their own."""
    random.seed(seed)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The global random states of this process."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"python": random.getstate(), "torch": torch.get_rng_state(), "cuda": cuda}


def restore_rng(state: dict[str, Any]) -> None:
    """Puts back what `rng_state` returned."""
    random.setstate(state["python"])
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])


def branch_rng(state: dict[str, Any], rank: int) -> None:
    """Random states of this rank that follow from one of another rank, as `rng_state` returned it."""
    generator = torch.Generator()
    generator.set_state(state["torch"])
    seed_everything(int(torch.randint(2**31, (), generator=generator)) + rank)


def _join(timeout_s: float) -> None:
    patience = timedelta(seconds=timeout_s)
    try:
        store, rank, world = next(rendezvous("env://", timeout=patience))
        # The group's own timeout is COLLECTIVE_TIMEOUT, so missing ranks must be noticed before it is made.
        store.set(f"arrived/{rank}", "yes")
        store.wait([f"arrived/{other}" for other in range(world)], patience)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise StageError(
            f"rank {os.environ.get('RANK')} of {os.environ.get('WORLD_SIZE')} did not meet the others at "
            f"{address} within cluster.rendezvous_timeout_s={timeout_s:g}: {error}; "
            "look for a rank that failed earlier, or raise cluster.rendezvous_timeout_s"
        ) from error
    torch_dist.init_process_group(
        _backend(), store=store, rank=rank, world_size=world, timeout=COLLECTIVE_TIMEOUT
    )


def _backend() -> str:
    return "nccl" if torch.cuda.is_available() else "gloo"


def _leave() -> None:
    if torch_dist.is_initialized():
        torch_dist.destroy_process_group()
