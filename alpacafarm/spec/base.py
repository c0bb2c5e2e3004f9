"""The base of every spec: unknown keys are refused, nothing is coerced, instances are frozen."""

from typing import Any

from pydantic import BaseModel, ConfigDict


class Strict(BaseModel):
    """A frozen spec. `3` is accepted where a float is asked for; nothing else changes its type."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())

    def canonical(self, *, exclude: set[str] | None = None) -> dict[str, Any]:
        """The spec as plain JSON values, for keys and files."""
        return self.model_dump(mode="json", exclude=exclude)
