"""Whether stages fit on their devices, and what would make them fit."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from alpacafarm.cost.device import GIB, available, free_bytes, on_gpu, processes
from alpacafarm.cost.load import load_of
from alpacafarm.cost.memory import Estimate, estimate, layout
from alpacafarm.cost.shape import FAMILIES, shape_of_config
from alpacafarm.engine.zero import refusals
from alpacafarm.errors import SpecError
from alpacafarm.spec.cluster import ClusterSpec
from alpacafarm.spec.model import ModelSpec
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import Stage
from launchers.gpus import visible_gpus

BATCHES = ("cluster.generation_batch", "cluster.micro_batch")  # rows at once; the first grows first

Overrides = Mapping[str, Any]


@dataclass(frozen=True)
class Need:
    """What a stage takes on each device."""

    stage: Stage
    estimate: Estimate

    @property
    def text(self) -> str:
        parts = sorted(self.estimate.parts.items(), key=lambda part: -part[1])
        told = ", ".join(
            f"{name} {in_gib(size)}" for name, size in parts if size >= 0.01 * self.estimate.total
        )
        return f"{in_gib(self.estimate.total)} GiB ({told}; most at: {self.estimate.moment})"


def in_gib(size: float) -> str:
    return f"{size / GIB:.3g}" if size < 1000 * GIB else f"{size / GIB:,.0f}"


def needs(spec: RunSpec, stages: Sequence[Stage], world: int) -> list[Need]:
    """Of the stages whose models' shapes are known."""
    lay = layout(spec.cluster, spec.model, world=world, on_gpu=on_gpu(spec.cluster))
    loads = [(stage, load_of(stage, spec, world)) for stage in stages]
    return [Need(stage, estimate(load, lay)) for stage, load in loads if load is not None]


def side_by_side(spec: RunSpec, stages: Sequence[Stage], world: int) -> int | None:
    """How many of `stages` fit into the memory that they share on this machine, at least one.

    None where they have devices of their own, or where nobody says how much there is.
    """
    cluster = spec.cluster
    free = None if cluster.slurm or on_gpu(cluster) else free_bytes()
    most = max((need.estimate.total for need in needs(spec, stages, world)), default=None)
    return max(1, free // (world * most)) if free and most else None


def check_memory(spec: RunSpec, stages: Sequence[Stage], world: int) -> None:
    """SpecError where one of `stages`, which are to be made, takes more than a device has."""
    check_shape(spec.model)
    room = available(spec.cluster, world)
    if spec.force or room is None:
        return
    too_large = [need for need in needs(spec, stages, world) if need.estimate.total > room.size]
    if not too_large:
        return
    worst = max(too_large, key=lambda need: need.estimate.total)
    others = dict.fromkeys(need.stage.name for need in too_large if need.stage.name != worst.stage.name)
    also = f" (too large as well: {', '.join(others)})" if others else ""
    found = suggestion(spec, stages, world)
    way_out = "no setting of cluster makes it fit: choose a smaller model or larger devices"
    if found is not None:
        most = max(need.estimate.total for need in needs_with(spec, stages, found) or ())
        told = " ".join(f"{key}={shown(value)}" for key, value in found.items())
        way_out = f"set {told}, with which the most is {in_gib(most)} GiB"
    whom = "its process" if world == 1 else f"each of {world} processes"
    raise SpecError(
        f"stage {worst.stage.name}{also}: {whom} takes about {worst.text}, and "
        f"{in_gib(room.size)} GiB are there ({room.source}); {way_out}, or force=true to run all the same"
    )


def check_shape(model: ModelSpec) -> None:
    if model.shape is not None and shape_of_config(model.shape) is None:
        raise SpecError(
            f"model.shape={model.shape}: must be the sizes of a config.json with model_type one of "
            f"{', '.join(FAMILIES)}; set model.shape=null to plan without"
        )


def shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def suggestion(spec: RunSpec, stages: Sequence[Stage], world: int) -> Overrides | None:
    """The first overrides of `ladder` with which all of `stages` fit, less what they fit without."""
    for overrides in ladder(spec, world):
        if fits(spec, stages, overrides):
            return relaxed(spec, stages, overrides)
    return None


def relaxed(spec: RunSpec, stages: Sequence[Stage], overrides: Overrides) -> Overrides:
    """Drops what is not needed, and makes batches as large again as there is room for."""
    kept = dict(overrides)
    for key in overrides:
        fewer = {other: value for other, value in kept.items() if other != key}
        if fewer and fits(spec, stages, fewer):
            kept = fewer
    for key in BATCHES:
        while key in kept and fits(spec, stages, larger := {**kept, key: 2 * kept[key]}):
            kept = larger
    return kept


def ladder(spec: RunSpec, world: int) -> Iterator[dict[str, Any]]:
    """Ever more overrides, the cheapest first. None of them changes a result."""
    cluster, so_far = spec.cluster, dict[str, Any]()
    batches = {key: getattr(cluster, key.removeprefix("cluster.")) for key in BATCHES}
    while max(batches.values()) > 1:
        batches = {key: max(1, size // 2) for key, size in batches.items()}
        so_far |= batches
        yield dict(so_far)
    if not cluster.gradient_checkpointing:
        so_far["cluster.gradient_checkpointing"] = True
        yield dict(so_far)
    if cluster.engine == "deepspeed":
        for stage in range(cluster.zero_stage(world=world, dtype=spec.model.dtype) + 1, 4):
            so_far["cluster.zero.stage"] = stage
            yield dict(so_far)
        if on_gpu(cluster):
            for what in ("optimizer", "parameters"):
                if getattr(cluster.zero.offload, what) == "none":
                    so_far[f"cluster.zero.offload.{what}"] = "cpu"
                    yield dict(so_far)
            yield from more_processes(spec, so_far)


def more_processes(spec: RunSpec, so_far: Overrides) -> Iterator[dict[str, Any]]:
    """On SLURM up to sixteen times the nodes, here the GPUs that are left."""
    cluster = spec.cluster
    if cluster.slurm is not None:
        for times in (2, 4, 8, 16):
            yield {**so_far, "cluster.slurm.nodes": cluster.slurm.nodes * times}
    elif cluster.processes != "auto" and cluster.processes < len(visible_gpus()):
        yield {**so_far, "cluster.processes": len(visible_gpus())}


def fits(spec: RunSpec, stages: Sequence[Stage], overrides: Overrides) -> bool:
    found = needs_with(spec, stages, overrides)
    if found is None:
        return False
    cluster = changed(spec.cluster, overrides)
    room = available(cluster, processes(cluster))
    return room is not None and all(need.estimate.total <= room.size for need in found)


def needs_with(spec: RunSpec, stages: Sequence[Stage], overrides: Overrides) -> list[Need] | None:
    """None where the overrides are refused for another reason."""
    other = spec.model_copy(update={"cluster": changed(spec.cluster, overrides)})
    world = processes(other.cluster)
    if other.batch_problems(world) or refusals(other.cluster, other.model, world):
        return None
    return needs(other, stages, world)


def changed(cluster: ClusterSpec, overrides: Overrides) -> ClusterSpec:
    raw = cluster.model_dump()
    for key, value in overrides.items():
        *groups, name = key.split(".")[1:]
        place = raw
        for group in groups:
            place = place[group]
        place[name] = value
    return ClusterSpec.model_validate(raw)
