"""`method`: what every method's Spec builds on. A method's own Spec stands in its module."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from alpacafarm.spec.base import Named, Problem, Strict, refuse
from alpacafarm.spec.judge import JudgeSpec
from alpacafarm.spec.model import Sampling


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


class MethodSpec(Named):
    """Fields that every method has."""

    @property
    def control_tokens(self) -> tuple[str, ...]:
        """What the method adds to the policy's vocabulary."""
        return ()


class PickStep(Strict):
    """The policy as it was after `step` steps."""

    by: Literal["step"]
    step: int = Field(ge=1)


class PickReward(Strict):
    """The snapshot whose answers to the val split have the highest mean reward."""

    by: Literal["reward"]
    sampling: Sampling


class PickJudge(Strict):
    """The snapshot whose answers to the val split win most often over the SFT model's, as `judge` sees it."""

    by: Literal["judge"]
    sampling: Sampling
    judge: JudgeSpec


PickSpec = Annotated[PickStep | PickReward | PickJudge, Field(discriminator="by")]


class TrainedSpec(MethodSpec):
    """A method that publishes its policy every `snapshot_every` optimiser or collection steps.

    `pick` says which snapshot becomes the policy; null: the last. No way to pick sees the eval split.
    """

    optim: OptimSpec
    snapshot_every: int | None = Field(ge=1)
    pick: PickSpec | None

    @model_validator(mode="after")
    def there_are_snapshots_to_pick_from(self) -> Self:
        if self.pick is not None and self.snapshot_every is None:
            text = "must be set where .pick is; set .snapshot_every=10, for example, or .pick=null"
            refuse(Problem("snapshot_every", None, text))
        if isinstance(self.pick, PickStep) and self.pick.step % (every := self.snapshot_every or 1):
            near = max(1, round(self.pick.step / every)) * every
            text = f"must be a multiple of .snapshot_every={every}; set .pick.step={near} or change the other"
            refuse(Problem("pick.step", self.pick.step, text))
        return self


class OnPolicySpec(TrainedSpec):
    """Each step samples `rollouts_per_step` responses for `epochs_per_rollout` passes of `optim.batch_size`,
    which counts responses, too. Training ends early at the step whose rollouts are more than `kl_budget` nats
    per response from the SFT model."""

    steps: int = Field(ge=1)
    rollouts_per_step: int = Field(ge=2)
    epochs_per_rollout: int = Field(ge=1)
    kl_budget: float | None = Field(gt=0)
    sampling: Sampling

    @property
    def group(self) -> int:
        """Responses to one prompt. They are compared with each other, and stay together on one process."""
        return 1

    @property
    def updates(self) -> int:
        """Optimiser steps of the whole run."""
        return self.steps * self.epochs_per_rollout * (self.rollouts_per_step // self.optim.batch_size)

    @property
    def snapshots(self) -> int:
        """Policies that are published, the last one included; fewer where training ends early."""
        return -(-self.steps // (self.snapshot_every or self.steps))

    @property
    def work(self) -> str:
        """What the run takes, for the plan."""
        rollouts = self.steps * self.rollouts_per_step
        return f"{self.steps} steps, {rollouts:,} rollouts, {self.updates:,} updates"

    @model_validator(mode="after")
    def there_is_a_snapshot_to_pick(self) -> Self:
        if isinstance(self.pick, PickStep) and self.pick.step > self.steps:
            text = f"must be at most .steps={self.steps}; set .pick.step={self.steps} or raise .steps"
            refuse(Problem("pick.step", self.pick.step, text))
        if self.pick is not None and self.snapshot_every is not None and self.snapshot_every > self.steps:
            text = f"must be at most .steps={self.steps}, or there is nothing to pick from; lower it"
            refuse(Problem("snapshot_every", self.snapshot_every, text))
        return self

    @model_validator(mode="after")
    def minibatches_fill_the_rollouts(self) -> Self:
        size = self.optim.batch_size
        if size % self.group:
            text = (
                f"must be a multiple of the {self.group} responses to a prompt, which share a batch; "
                f"set .optim.batch_size={max(1, size // self.group) * self.group}"
            )
            refuse(Problem("optim.batch_size", size, text))
        if self.rollouts_per_step % size:
            text = (
                f"must be a multiple of .optim.batch_size={size}; "
                f"set .rollouts_per_step={max(1, self.rollouts_per_step // size) * size} or change the other"
            )
            refuse(Problem("rollouts_per_step", self.rollouts_per_step, text))
        return self
