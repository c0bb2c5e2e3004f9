"""How much a stage does: which models pass over how many tokens, and how often they learn from them.

Every row counts as long as it may be, so the numbers are upper bounds; a stage whose rows nobody knows before
they are read has none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from alpacafarm.cost.load import Load, Net, has_model, load_of
from alpacafarm.spec.data import WorldData
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import Kind, Node, Stage


@dataclass(frozen=True)
class Pass:
    """A model over rows of so many tokens each. `samples` counts tokens of each row that are drawn."""

    net: Net
    rows: int
    tokens: int
    trains: bool = False
    samples: int = 0


def rows_of(node: Node, spec: RunSpec) -> int | None:
    """Rows, pairs or outputs of a node, at most; None where that is known when they are read."""
    if not isinstance(node, Stage):
        return None
    if node.makes is Kind.OUTPUTS:
        return _outputs(node, spec)
    split = node.params.get("split")
    if split is not None:
        if isinstance(spec.data, WorldData):
            return getattr(spec.data, str(split), None)
        bounds = spec.data.expect.bounds(str(split)) if spec.data.expect else None
        return None if bounds is None else bounds[1]
    if node.makes is Kind.PAIRS and "samples" in node.inputs:  # one pair of an instruction's samples
        samples = node.inputs["samples"]
        return rows_of(samples.inputs["rows"], spec) if isinstance(samples, Stage) else None
    return None


def _outputs(node: Stage, spec: RunSpec) -> int | None:
    if "samples" in node.inputs:  # the best of each instruction's
        samples = node.inputs["samples"]
        count, n = rows_of(samples, spec), samples.params["n"] if isinstance(samples, Stage) else 1
        return None if count is None else count // int(n)
    count = rows_of(node.inputs["rows"], spec) if "rows" in node.inputs else None
    if count is None:
        return None
    prompts = node.params.get("prompts")
    return int(node.params.get("n", 1)) * (count if prompts is None else min(count, int(prompts)))


def work_of(stage: Stage, spec: RunSpec, world: int) -> list[Pass] | None:
    """None where rows or shapes are not known. A stage without a model does nothing that takes long."""
    if not stage.uses_devices or not has_model(stage, spec):
        return []
    load = load_of(stage, spec, world)
    if load is None:
        return None
    if "rollouts_per_step" in stage.params:
        return list(on_policy(stage, load))
    counted = {role: rows_of(node, spec) for role, node in stage.inputs.items() if _has_rows(node)}
    if None in counted.values():
        return None
    found = {role: rows for role, rows in counted.items() if rows is not None}
    if load.trained:
        return list(offline(stage, load, found))
    return list(measuring(stage, load, found))


def offline(stage: Stage, load: Load, rows: dict[str, int]) -> Iterator[Pass]:
    """Epochs over fixed rows, both sides of pairs but for what imitates the chosen one."""
    sides = 2 if load.use.both else 1
    epochs = int(stage.params.get("epochs", 1))
    total = sum(count * (sides if _is_pairs(stage, role) else 1) for role, count in rows.items())
    for net in load.trained:
        yield Pass(net, total * epochs, load.length, trains=True)


def on_policy(stage: Stage, load: Load) -> Iterator[Pass]:
    """Sampling, one pass of every model over the samples, and the updates."""
    steps, rollouts = int(stage.params["steps"]), int(stage.params["rollouts_per_step"])
    policy, *others = load.trained
    yield Pass(policy, steps * rollouts, load.prompt, samples=load.response)
    for net in (policy, *others, *load.frozen):
        yield Pass(net, steps * rollouts, load.length)
    share = int(stage.params.get("pool_steps", 1))
    if stage.params.get("train_on") == "best":
        learned = rollouts * share // int(stage.params["quantiles"])
    else:
        learned = rollouts * share
    for net in load.trained:
        yield Pass(net, steps * int(stage.params["epochs_per_rollout"]) * learned, load.length, trains=True)


def measuring(stage: Stage, load: Load, rows: dict[str, int]) -> Iterator[Pass]:
    """Decoding, or scores and log-probabilities of rows."""
    if stage.makes is Kind.OUTPUTS and load.sampled:
        count = int(stage.params.get("n", 1)) * min(
            [*rows.values(), *([int(stage.params["prompts"])] if stage.params.get("prompts") else [])]
        )
        yield Pass(load.frozen[0], count, load.prompt, samples=load.response)
        return
    if load.sampled:  # every snapshot of a training answers
        trained = stage.inputs["trained"]
        assert isinstance(trained, Stage)
        every = int(trained.params.get("snapshot_every") or 1)
        count = rows["rows"] * -(-int(trained.params.get("steps", every)) // every)
        yield Pass(load.frozen[0], count, load.prompt, samples=load.response)
        for net in load.frozen[1:]:
            yield Pass(net, count, load.length)
        return
    total = sum(count * (2 if _is_pairs(stage, role) else 1) for role, count in rows.items())
    one = rows.get("outputs", total)
    for net in load.frozen:
        yield Pass(net, total if net.is_scorer else one, load.length)


def _has_rows(node: Node) -> bool:
    return _kind(node) in (Kind.ROWS, Kind.PAIRS, Kind.OUTPUTS)


def _is_pairs(stage: Stage, role: str) -> bool:
    return _kind(stage.inputs[role]) is Kind.PAIRS


def _kind(node: Node) -> Kind:
    return node.makes if isinstance(node, Stage) else node.kind
