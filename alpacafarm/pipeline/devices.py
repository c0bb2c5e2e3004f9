"""How many processes a stage gets on this machine, found without importing torch."""

from alpacafarm.engine.zero import refusals
from alpacafarm.errors import SpecError
from alpacafarm.spec.run import RunSpec
from launchers.gpus import visible_gpus


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
