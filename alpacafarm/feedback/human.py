"""Human feedback: the user's recorded preferences, or in the embedded world a human-like pool.

People disagree more than simulated annotators do and add no coin flips of their own."""

from alpacafarm.data import plan as data_plan
from alpacafarm.errors import PlanError
from alpacafarm.feedback import sim
from alpacafarm.ports import Upstream
from alpacafarm.stage import Node


class Spec(sim.Spec):
    """As simulated feedback. `preferences` names what people have said, which is used instead."""


def plan(spec: Spec, up: Upstream) -> Node:
    if spec.preferences:
        return data_plan.pairs_from_file(up, "data.preferences", spec.preferences)
    if spec.judge.kind != "world" or not up.has_gold:
        raise PlanError(
            "feedback=human needs people's judgements and data.preferences=null: "
            "name a file of judged pairs in data.preferences or given.pairs, or use data=world"
        )
    return sim.annotated(spec, up)
