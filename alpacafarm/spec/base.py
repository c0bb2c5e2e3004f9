"""The base of every spec: unknown keys are refused, nothing is coerced, instances are frozen."""

from dataclasses import dataclass
from typing import Any, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError


class Strict(BaseModel):
    """A frozen spec. `3` is accepted where a float is asked for; nothing else changes its type.

    Infinity and NaN are refused: JSON, which keys and spec.json are made of, has neither.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, protected_namespaces=(), allow_inf_nan=False
    )

    def canonical(self, *, exclude: set[str] | None = None) -> dict[str, Any]:
        """The spec as plain JSON values, for keys and files."""
        return self.model_dump(mode="json", by_alias=True, exclude=exclude)


class Named(Strict):
    """What a module of that name reads: a method, a preference source or an evaluation.

    `_module` is the dotted name of the module: for one outside of this package, and where several names share
    one. Null: the module of this package, or the entry point, called `name`.
    """

    name: str
    module: str | None = Field(default=None, alias="_module", exclude_if=lambda dotted: dotted is None)


@dataclass(frozen=True)
class Problem:
    """A value that does not go with another one. `key` is dotted, from the spec that refuses it.

    `text` says what is required and a way out. A spec does not know where in the config it stands, so keys of
    its own begin with a dot in the text (`set .steps=1`) and get their whole path when the message is shown.
    """

    key: str
    value: Any
    text: str


def refuse(*problems: Problem) -> NoReturn:
    """Called by a spec's validator: raises pydantic's error with one entry for each problem."""
    raise ValidationError.from_exception_data(
        "spec",
        [
            InitErrorDetails(
                type=PydanticCustomError("problem", "{text}", {"key": p.key, "text": p.text}),
                loc=tuple(p.key.split(".")),
                input=p.value,
            )
            for p in problems
        ],
    )
