"""`feedback`: who says which of two answers is better. A source's own Spec stands in its module."""

from alpacafarm.spec.base import Named


class FeedbackSpec(Named):
    """Fields that every preference source has."""
