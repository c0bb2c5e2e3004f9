"""`method`: what every method's Spec builds on. A method's own Spec stands in its module."""

from typing import Annotated, Literal

from pydantic import Field

from alpacafarm.spec.base import Strict


class OptimSpec(Strict):
    """AdamW and its schedule. `batch_size` counts rows (documents, pairs, rollouts) over all devices."""

    lr: float = Field(ge=0)
    batch_size: int = Field(ge=1)
    schedule: Literal["cosine", "linear", "constant"]
    warmup_fraction: float = Field(ge=0, lt=1)
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(min_length=2, max_length=2)
    eps: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)


class MethodSpec(Strict):
    """Fields that every method has.

    `_module` is the dotted name of the module that has the method: for one outside of this package, and where
    several names share one module. Null: the module of this package, or the entry point, called `name`.
    """

    name: str
    module: str | None = Field(default=None, alias="_module", exclude_if=lambda dotted: dotted is None)
