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


def make_plan(spec: RunSpec, *, eval_asked: bool = True) -> Plan:
    """The stages of a run. PlanError when the groups ask for something that does not exist.

    A reward model has no outputs to evaluate: its plan goes without, unless evaluation was `eval_asked` for.
    """
    upstream = SpecUpstream(spec)
    try:
        plan = _planned(spec, upstream, eval_asked)
    except PlanError as error:
        raise PlanError("\n".join([*upstream.problems, str(error)])) from None
    if upstream.problems:
        raise PlanError("\n".join(upstream.problems))
    return plan


def _planned(spec: RunSpec, upstream: SpecUpstream, eval_asked: bool) -> Plan:
    method = spec.method.name
    candidate: Stage = lookup.module("methods", method, spec.method.module).plan(spec.method, upstream)
    role = "rm" if candidate.makes is Kind.REWARD else method
    given = spec.given.canonical().get(role)
    if given is not None and f"given.{role}" not in upstream.used:
        raise PlanError(
            f"given.{role}={given}: method={method} would make it, so there is nothing to do; "
            f"leave given.{role} out or choose another method"
        )
    if spec.eval is None:
        return Plan(ordered([candidate]), candidate, None)
    if candidate.makes not in (Kind.POLICY, Kind.OUTPUTS):
        if not eval_asked:
            return Plan(ordered([candidate]), candidate, None)
        raise PlanError(
            f"eval={spec.eval.name}: it needs outputs, and method={method} makes a "
            f"{candidate.makes} artifact; set eval=none or choose another method"
        )
    scores = lookup.module("evals", spec.eval.name, spec.eval.module).plan(spec.eval, upstream, candidate)
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
