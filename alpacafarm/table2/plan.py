"""The plan of all runs together: each stage once, what each run adds, what it will cost. Without torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table
from rich.text import Text

from alpacafarm.artifacts.store import State, Store
from alpacafarm.cost.device import on_gpu
from alpacafarm.cost.fit import in_gib, needs
from alpacafarm.cost.hours import Duration, duration, model_lines, total_gpu_hours
from alpacafarm.cost.load import has_model
from alpacafarm.report.status import console
from alpacafarm.spec.cluster import SpeedSpec
from alpacafarm.stage import Stage, in_usd
from alpacafarm.table2.runs import Planned


@dataclass(frozen=True)
class Machines:
    """What a stage asks of machines. `memory` is in bytes of each device; None: not known, or no model."""

    nodes: int
    gpus: int
    memory: int | None
    duration: Duration | None


def show(items: Sequence[Planned], notes: Sequence[str]) -> None:
    first: dict[str, Planned] = {}
    stages: dict[str, Stage] = {}
    for item in items:
        for stage in item.job.plan.stages:
            stages.setdefault(stage.key, stage)
            first.setdefault(stage.key, item)
    numbers = {key: number for number, key in enumerate(stages, 1)}
    spec = items[0].job.spec
    store = Store(Path(spec.store).expanduser())
    states = {key: store.state(stage) for key, stage in stages.items()}
    machines = {key: machines_of(stage, first[key]) for key, stage in stages.items()}
    out = console()
    out.print(stage_table(stages, numbers, states, machines))
    out.print()
    out.print(run_table(items, numbers))
    out.print()
    to_do = [key for key in stages if states[key] != "done"]
    told = [
        *totals(list(stages.values()), states),
        *hours([stages[key] for key in to_do], machines, spec.cluster.speed),
        *model_lines(spec),
        *notes,
    ]
    for line in told:
        out.print(Text(line))


def machines_of(stage: Stage, item: Planned) -> Machines:
    spec, world = item.job.spec, item.job.world
    if not stage.uses_devices:
        return Machines(1, 0, None, duration(stage, spec, world))
    found = needs(spec, [stage], world)
    return Machines(
        nodes=spec.cluster.slurm.nodes if spec.cluster.slurm else 1,
        gpus=world if on_gpu(spec.cluster) else 0,
        memory=found[0].estimate.total if found else None if has_model(stage, spec) else 0,
        duration=duration(stage, spec, world),
    )


def stage_table(
    stages: Mapping[str, Stage],
    numbers: Mapping[str, int],
    states: Mapping[str, State],
    machines: Mapping[str, Machines],
) -> Table:
    """GiB are those of each device; hours are at most; a question mark is a number that is not known."""
    table = _table("#", "stage", "makes", "key", "seed", "state", "needs")
    for title in ("nodes", "GPUs", "GiB each", "hours", "judge calls", "price"):
        table.add_column(title, justify="right")
    table.add_column("work")
    for key, stage in stages.items():
        parents = stage.inputs.values()
        needed = [str(numbers[p.key]) if isinstance(p, Stage) else short(p.location) for p in parents]
        own = machines[key]
        calls = stage.bill.judge_calls
        cells = (
            str(numbers[key]),
            stage.name,
            str(stage.makes),
            key,
            str(stage.seed),
            states[key],
            " ".join(needed),
            str(own.nodes),
            str(own.gpus),
            memory_cell(stage, own),
            hours_cell(stage, own),
            "?" if calls is None else f"{calls:,}" if calls else "",
            in_usd(stage.bill.price_usd) if calls else "",
            stage.needs,
        )
        table.add_row(*map(Text, cells))
    return table


def short(location: str) -> str:
    """The name of a hub's file, whose address would fill the line."""
    return location.rpartition("/")[2] if location.startswith("hf://") else location


def memory_cell(stage: Stage, machines: Machines) -> str:
    if not stage.uses_devices:
        return ""
    return "?" if machines.memory is None else in_gib(machines.memory)


def hours_cell(stage: Stage, machines: Machines) -> str:
    if not stage.uses_devices:
        return ""
    return "?" if machines.duration is None else f"{machines.duration.hours:.2f}"


def hours(stages: Sequence[Stage], machines: Mapping[str, Machines], speed: SpeedSpec | None) -> list[str]:
    """Sums over the stages that are to be made, and what they do not contain."""
    if speed is None:
        return []
    found = [machines[stage.key].duration for stage in stages if stage.uses_devices]
    known = [one for one in found if one is not None]
    gpu_hours = total_gpu_hours(found)
    price = f", {gpu_hours * speed.usd_per_gpu_hour:,.0f} USD" if speed.usd_per_gpu_hour is not None else ""
    unknown = len(found) - len(known)
    more = f", and {unknown} stages of which nobody knows" if unknown else ""
    return [
        f"machines: {len(found)} jobs with a model, at most {gpu_hours:,.0f} GPU hours{price}, "
        f"{sum(one.hours for one in known):,.0f} hours one after the other{more}"
    ]


def run_table(items: Sequence[Planned], numbers: Mapping[str, int]) -> Table:
    """What each run needs beyond the runs before it."""
    table = _table("run", "row", "on", "seed", "shares", "adds")
    seen: set[str] = set()
    for place, item in enumerate(items, 1):
        new = [stage for stage in item.job.plan.stages if stage.key not in seen]
        seen |= {stage.key for stage in new}
        shared = len(item.job.plan.stages) - len(new)
        adds = ", ".join(f"{stage.name} ({numbers[stage.key]})" for stage in new)
        cells = (str(place), item.row.label, item.column, str(item.seed), f"{shared} stages", adds)
        table.add_row(*map(Text, cells))
    return table


def totals(stages: Sequence[Stage], states: Mapping[str, State]) -> list[str]:
    """Counts, and the bill of what is still to do."""
    to_do = [stage for stage in stages if states[stage.key] != "done"]
    calls = sum(stage.bill.judge_calls or 0 for stage in to_do)
    unknown = sum(stage.bill.judge_calls is None for stage in to_do)
    price = sum(stage.bill.price_usd for stage in to_do)
    more = f", and those of {unknown} stages that are known when their rows are read" if unknown else ""
    return [
        f"{len(stages)} stages, {len(stages) - len(to_do)} of them done",
        f"to do: about {calls:,} judge calls{more}, {price:,.2f} USD",
    ]


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    return table
