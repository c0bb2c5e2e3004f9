"""The plan of a run: its stages, parents first, equal stages merged."""

from collections.abc import Iterable
from dataclasses import dataclass

from alpacafarm import lookup
from alpacafarm.errors import PlanError
from alpacafarm.pipeline.upstream import SpecUpstream
from alpacafarm.spec.run import RunSpec
from alpacafarm.stage import Kind, Node, Stage


@dataclass(frozen=True)
class Plan:
    """`candidate` is what the method makes; `scores` what measures it, None where nothing is evaluated."""

    stages: tuple[Stage, ...]
    candidate: Stage
    scores: Stage | None


def make_plan(spec: RunSpec) -> Plan:
    """The stages of a run. PlanError when the groups ask for something that does not exist."""
    upstream = SpecUpstream(spec)
    candidate = lookup.module("methods", spec.method.name).plan(spec.method, upstream)
    if not isinstance(candidate, Stage):
        raise PlanError(
            f"method={spec.method.name}: its artifact was given, so there is nothing to make; remove given.* or choose "
            "another method"
        )
    if spec.eval is None:
        return Plan(ordered([candidate]), candidate, None)
    if candidate.makes not in (Kind.POLICY, Kind.OUTPUTS):
        raise PlanError(
            f"eval={spec.eval.name} needs outputs and method={spec.method.name} makes a {candidate.makes} artifact; "
            "set eval=none"
        )
    scores = lookup.module("evals", spec.eval.name).plan(spec.eval, upstream, candidate)
    return Plan(ordered([candidate, scores]), candidate, scores)


def ordered(targets: Iterable[Stage]) -> tuple[Stage, ...]:
    """Every stage the targets need, parents before children, each key once."""
    seen: dict[str, Stage] = {}

    def visit(node: Node) -> None:
        if isinstance(node, Stage) and node.key not in seen:
            for parent in node.inputs.values():
                visit(parent)
            seen.setdefault(node.key, node)

    for target in targets:
        visit(target)
    return tuple(seen.values())
