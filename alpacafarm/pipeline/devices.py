"""How many processes a stage gets on this machine, found without importing torch."""

from alpacafarm.cost.device import processes
from alpacafarm.engine.zero import refusals
from alpacafarm.errors import SpecError
from alpacafarm.spec.run import RunSpec


def process_count(spec: RunSpec) -> int:
    """`cluster.processes`; `auto` is one for each visible GPU, else one. With SLURM it is its tasks.

    Raises SpecError where the engine cannot do what the rest of the spec asks.
    """
    cluster = spec.cluster
    world = processes(cluster)
    if cluster.slurm and world != cluster.slurm.tasks:
        raise SpecError(
            f"cluster.processes={world}: must be cluster.slurm.nodes={cluster.slurm.nodes} times "
            f"cluster.slurm.tasks_per_node={cluster.slurm.tasks_per_node}; set cluster.processes=auto"
        )
    problems = [f"{p.key}={p.value}: {p.text}" for p in spec.batch_problems(world)]
    problems += refusals(spec.cluster, spec.model, world)
    if problems:
        raise SpecError("\n".join(problems))
    return world
