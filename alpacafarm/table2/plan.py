"""The plan of all runs together: each stage once, what each run adds, what it will cost. Without torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from alpacafarm.artifacts.store import State, Store
from alpacafarm.report.status import console
from alpacafarm.stage import Stage
from alpacafarm.table2.runs import Planned


def show(items: Sequence[Planned], notes: Sequence[str]) -> None:
    stages = {stage.key: stage for item in items for stage in item.job.plan.stages}
    numbers = {key: number for number, key in enumerate(stages, 1)}
    store = Store(Path(items[0].job.spec.store).expanduser())
    states = {key: store.state(stage) for key, stage in stages.items()}
    out = console()
    out.print(stage_table(stages, numbers, states))
    out.print()
    out.print(run_table(items, numbers))
    out.print()
    for line in [*totals(list(stages.values()), states), *notes]:
        out.print(Text(line))


def stage_table(
    stages: Mapping[str, Stage], numbers: Mapping[str, int], states: Mapping[str, State]
) -> Table:
    table = _table("#", "stage", "makes", "key", "seed", "state", "needs", "cost and derived numbers")
    for key, stage in stages.items():
        parents = [node for node in stage.inputs.values()]
        needs = [str(numbers[p.key]) if isinstance(p, Stage) else p.location for p in parents]
        cells = (stage.name, str(stage.makes), key, str(stage.seed), states[key], " ".join(needs), stage.cost)
        table.add_row(*map(Text, (str(numbers[key]), *cells)))
    return table


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
