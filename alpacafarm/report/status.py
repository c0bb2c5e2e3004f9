"""`action=plan` and `action=status`: what would be made, and what there is. Without torch."""

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alpacafarm.api.ledger import ledger
from alpacafarm.artifacts.store import Store
from alpacafarm.cost.device import available
from alpacafarm.cost.fit import in_gib, needs
from alpacafarm.cost.hours import duration, model_lines, total_gpu_hours
from alpacafarm.cost.load import has_model
from alpacafarm.pipeline.budget import budget_lines
from alpacafarm.pipeline.devices import process_count
from alpacafarm.pipeline.execute import missing
from alpacafarm.pipeline.plan import Plan
from alpacafarm.spec.base import Strict
from alpacafarm.spec.cluster import SlurmSpec
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import Stage
from launchers.slurm import sbatch_options

WIDE = 200  # columns where the output is no terminal


def console() -> Console:
    if isinstance(sys.stdout, TextIOWrapper):  # names from files have what it may not be able to write
        sys.stdout.reconfigure(errors="backslashreplace")
    plain = Console()
    return plain if plain.is_terminal else Console(width=WIDE, no_color=True)


def show_plan(spec: RunSpec, plan: Plan) -> None:
    """The stages with key and state, why the first of them are to do, and what the spec implies."""
    store = Store(Path(spec.store).expanduser())
    number = {stage.key: str(i) for i, stage in enumerate(plan.stages, 1)}
    lines = []
    for stage in plan.stages:
        parents = [number[parent.key] for parent in stage.inputs.values() if isinstance(parent, Stage)]
        given = [parent.location for parent in stage.inputs.values() if not isinstance(parent, Stage)]
        state = store.state(stage)
        follows = any(isinstance(p, Stage) and store.state(p) != "done" for p in stage.inputs.values())
        why = "" if state == "done" or follows else store.explain(stage) or ""
        needs = " ".join([*parents, *given])
        lines.append(
            (number[stage.key], stage.name, str(stage.makes), stage.key, state, needs, stage.cost, why)
        )
    titles = ("#", "stage", "makes", "key", "state", "needs", "cost and derived numbers", "why")
    shown = titles if any(why for *_, why in lines) else titles[:-1]
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in shown:
        table.add_column(title, overflow="fold")
    for cells in lines:
        table.add_row(*map(Text, cells[: len(shown)]))
    out = console()
    out.print(table)
    for line in derived(spec, plan.stages):
        out.print(line, highlight=False)
    for line in slurm_lines(spec.cluster.slurm, plan.stages):
        out.print(line, highlight=False)
    for line in budget_lines(spec.budget, missing(plan, store.is_done)):
        out.print(line, highlight=False)


def slurm_lines(slurm: SlurmSpec | None, stages: Sequence[Stage]) -> list[str]:
    """What SLURM is asked for, by the stages that are asked for alike."""
    if slurm is None:
        return []
    lines = []
    for uses_devices in (True, False):
        names = dict.fromkeys(stage.name for stage in stages if stage.uses_devices == uses_devices)
        asked = sbatch_options(slurm, uses_devices=uses_devices)
        told = " ".join(f"--{option}={value}" for option, value in asked.items())
        if names:
            lines.append(f"sbatch {told}: {', '.join(names)}")
    return lines


def derived(spec: RunSpec, stages: Sequence[Stage]) -> list[str]:
    """Numbers that follow from the spec and are written nowhere, for the stages that are made."""
    world, made = process_count(spec), {stage.name for stage in stages}
    stage = spec.cluster.zero_stage(world=world, dtype=spec.model.dtype)
    engine = f"DeepSpeed ZeRO-{stage}" if spec.cluster.engine == "deepspeed" else "plain torch"
    lines = [f"{world} process(es), {engine}, {spec.model.dtype}, micro-batch {spec.cluster.micro_batch}"]
    lines += memory_lines(spec, stages, world)
    roles: dict[str, Strict] = {str(role): method for role, method in spec.upstream.items()}
    roles[spec.method.name] = spec.method
    for role, method in roles.items():
        batch = getattr(getattr(method, "optim", None), "batch_size", None)
        if batch is not None and role in made:
            accumulation = -(-batch // (world * spec.cluster.micro_batch))
            lines.append(
                f"{role}: {batch} rows an update = up to {accumulation} micro-batch(es) on each process"
            )
    return lines


def memory_lines(spec: RunSpec, stages: Sequence[Stage], world: int) -> list[str]:
    """What each stage takes of each device, and how much there is."""
    told = {need.stage.name: need.text for need in needs(spec, stages, world)}
    room = available(spec.cluster, world)
    there = f"{in_gib(room.size)} GiB ({room.source})" if room else "unknown (cluster.device_memory_gb)"
    lines = [f"memory of each process at most, estimated; there are {there}:"]
    lines += [f"  {name}: {text}" for name, text in told.items()]
    if spec.cluster.speed is not None:
        lines += hours_lines(spec, stages, world)
    models = (stage.name for stage in stages if stage.uses_devices and has_model(stage, spec))
    unknown = dict.fromkeys(name for name in models if name not in told)
    if unknown:
        lines.append(
            "  unknown, for a model's config.json is not here or tells no known sizes (set model.shape): "
            + ", ".join(unknown)
        )
    return lines


def hours_lines(spec: RunSpec, stages: Sequence[Stage], world: int) -> list[str]:
    found = {stage.name: duration(stage, spec, world) for stage in stages if stage.uses_devices}
    told = [f"{name} {one.hours:.2f}" if one else f"{name} unknown" for name, one in found.items()]
    total = total_gpu_hours(list(found.values()))
    return [
        *model_lines(spec),
        f"  {', '.join(told)}; {total:,.1f} GPU hours in all",
    ]


def show_status(root: Path) -> None:
    """Every artifact of the store with its size, age and what it was made from, and what was paid."""
    store = Store(root)
    records = store.list()
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("kind", "key", "stage", "size", "made", "seconds", "from"):
        table.add_column(title, overflow="fold")
    for record in records:
        made = record.manifest
        parents = " ".join(f"{role}:{key}" for role, key in made.inputs.items())
        size = f"{record.size_bytes / 2**20:.1f} MiB"
        table.add_row(
            *map(
                Text,
                (str(made.kind), made.key, made.stage, size, made.started, f"{made.seconds:.1f}", parents),
            )
        )
    out = console()
    out.print(table)
    total = sum(record.size_bytes for record in records) / 2**20
    out.print(f"{len(records)} artifacts, {total:.1f} MiB in {store.root}", highlight=False)
    show_ledger(root)


def show_ledger(root: Path) -> None:
    """What was asked of models behind an API, for each run, stage and annotator, and what it cost."""
    lines = ledger(root)
    if not lines:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = (
        "run",
        "stage",
        "key",
        "annotator",
        "model",
        "calls",
        "answered",
        "failed",
        "unknown",
        "in flight",
    )
    for title in (*titles, "tokens in", "tokens out", "USD"):
        table.add_column(title, overflow="fold")
    for line in lines:
        counts = (line.calls, line.answered, line.failed, line.unknown, line.in_flight)
        numbers = [f"{n:,}" for n in (*counts, line.tokens_in, line.tokens_out)]
        cells = (
            line.run,
            line.stage,
            line.key,
            line.annotator,
            line.model,
            *numbers,
            f"{line.price_usd:.4f}",
        )
        table.add_row(*map(Text, cells))
    out = console()
    out.print(table)
    spent = sum(line.price_usd for line in lines)
    out.print(f"{sum(line.calls for line in lines):,} calls, {spent:.4f} USD in all", highlight=False)
