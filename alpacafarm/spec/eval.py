"""`eval`: how the finished policy is measured. An evaluation's own Spec stands in its module."""

from alpacafarm.spec.base import Named


class EvalSpec(Named):
    """Fields that every evaluation has."""
