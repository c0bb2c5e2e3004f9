"""How many processes a stage gets on this machine, found without importing torch."""

import glob
import os

from alpacafarm.engine.zero import refusals
from alpacafarm.errors import SpecError
from alpacafarm.spec.run import RunSpec


def process_count(spec: RunSpec) -> int:
    """`cluster.processes`; `auto` is one for each visible GPU, else one.

    Raises SpecError where the engine cannot do what the rest of the spec asks.
    """
    world = spec.cluster.processes if isinstance(spec.cluster.processes, int) else max(1, visible_gpus())
    problems = [f"{p.key}={p.value}: {p.text}" for p in spec.batch_problems(world)]
    problems += refusals(spec.cluster, spec.model, world)
    if problems:
        raise SpecError("\n".join(problems))
    return world


def visible_gpus() -> int:
    """NVIDIA devices of this machine, as CUDA_VISIBLE_DEVICES leaves them."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    return len(glob.glob("/dev/nvidia[0-9]*"))
