"""`eval`: how the finished policy is measured. An evaluation's own Spec stands in its module."""

from alpacafarm.spec.base import Strict


class EvalSpec(Strict):
    """Fields that every evaluation has."""

    name: str
