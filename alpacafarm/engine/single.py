"""The only process of a stage. Without torch: stages that only move rows need no more."""

from collections.abc import Sequence
from typing import Any


class SingleProcess:
    """One process: every collective is the identity."""

    rank = 0
    world = 1

    def total(self, values: Sequence[float]) -> list[float]:
        return [float(value) for value in values]

    def gather(self, value: Any) -> list[Any]:
        return [value]

    def broadcast(self, value: Any) -> Any:
        return value

    def barrier(self) -> None:
        return None
