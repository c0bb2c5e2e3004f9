"""Proximal policy optimisation from a reward model (Schulman et al. 2017; Dubois et al. 2023, section 4;
examples/scripts/rlhf_ppo.sh)."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from alpacafarm.data.rows import read_rows
from alpacafarm.errors import SpecError
from alpacafarm.ports import Artifact, Context, Engine, Inputs, LossFn, Upstream
from alpacafarm.spec.base import Problem, Strict, refuse
from alpacafarm.spec.method import MethodSpec, OptimSpec
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Kind, Stage
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.types import Example

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm.text.collate import Tokens
    from alpacafarm.training.online import Collected
    from alpacafarm.training.rollouts import RolloutBatch, Rollouts


class AdaptiveKL(Strict):
    """Moves `kl_coef` towards a KL of `target` nats per response (Ziegler et al. 2019, section 2.2)."""

    target: float = Field(gt=0)
    k_beta: float = Field(gt=0)


class Spec(MethodSpec):
    """Each step samples `rollouts_per_step` responses for `epochs_per_rollout` passes of `optim.batch_size`.

    `reward_std`: scores are centred and scaled so that the SFT model's responses have mean 0 and this
    deviation, which is what gives `kl_coef` its meaning; null leaves them raw. `missing_eos_penalty` is
    subtracted from the standardised score of a response that did not end.
    """

    fidelity: Literal["corrected", "published"]
    kl_coef: float = Field(ge=0)
    adaptive_kl: AdaptiveKL | None
    reward_std: float | None = Field(gt=0)
    missing_eos_penalty: float = Field(ge=0)
    steps: int = Field(ge=1)
    rollouts_per_step: int = Field(ge=2)
    epochs_per_rollout: int = Field(ge=1)
    clip: float = Field(gt=0, lt=1)
    value_clip: float = Field(gt=0)
    value_coef: float = Field(ge=0)
    value_lr_scale: float = Field(gt=0)
    gamma: float = Field(ge=0, le=1)
    lam: float = Field(ge=0, le=1)
    whiten_rewards: bool
    sampling: Sampling
    optim: OptimSpec

    @model_validator(mode="after")
    def minibatches_fill_the_rollouts(self) -> Spec:
        if self.rollouts_per_step % self.optim.batch_size:
            size = self.optim.batch_size
            text = (
                f"must be a multiple of .optim.batch_size={size}; "
                f"set .rollouts_per_step={max(1, self.rollouts_per_step // size) * size} or change the other"
            )
            refuse(Problem("rollouts_per_step", self.rollouts_per_step, text))
        return self


def plan(spec: Spec, up: Upstream) -> Stage:
    updates = spec.steps * spec.epochs_per_rollout * (spec.rollouts_per_step // spec.optim.batch_size)
    return up.stage(
        "ppo",
        "alpacafarm.methods.ppo:train",
        spec,
        makes=Kind.POLICY,
        inputs={"init": up.sft(), "reward": up.reward(), "rows": up.rows("unlabeled")},
        needs=f"{spec.steps} steps, {spec.steps * spec.rollouts_per_step:,} rollouts, {updates:,} updates",
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    from alpacafarm.training.online import improve

    policy = ctx.trainable(
        inputs["init"],
        spec.optim,
        head="actor_critic",
        critic=inputs["reward"],
        value_lr_scale=spec.value_lr_scale,
    )
    collector = Collector(spec, inputs, ctx, policy)
    improve(
        policy,
        collector.collect,
        ppo_loss(policy, spec),
        steps=spec.steps,
        optim=spec.optim,
        ctx=ctx,
        label="ppo",
    )
    ctx.record(kl_estimator=collector.shaping.estimator, fidelity=spec.fidelity)
    policy.export(ctx.out / "model")


class Collector:
    """Samples, scores and measures one step's rollouts. All that is random comes from seed, step and row."""

    def __init__(self, spec: Spec, inputs: Inputs, ctx: Context, policy: Engine) -> None:
        from alpacafarm.text.tokenise import encode_prompts
        from alpacafarm.training.rollouts import Shaping

        self.spec, self.ctx, self.policy = spec, ctx, policy
        self.reference = ctx.frozen(inputs["init"])
        self.scorer = ctx.scorer(inputs["reward"])
        self.tokenizer = ctx.tokenizer(inputs["init"])
        self.shift, self.scale = standardisation(spec, inputs["reward"])
        rows = read_rows(inputs["rows"].path / "rows.jsonl", Example)
        prompts = encode_prompts(
            self.tokenizer, ctx.model.prompt, [(row.instruction, row.input) for row in rows]
        )
        self.prompts = [p for p in prompts if len(p) <= ctx.model.max_prompt_tokens]
        ctx.record(dropped_prompts=len(prompts) - len(self.prompts))
        if not self.prompts:
            raise SpecError(
                f"model.max_prompt_tokens={ctx.model.max_prompt_tokens}: every prompt of the unlabeled split "
                f"is longer; set it to {min(map(len, prompts), default=0)} or more, or give shorter prompts"
            )
        self.shaping = Shaping(
            kl_coef=spec.kl_coef,
            reward_std=spec.reward_std or 1.0,
            gamma=spec.gamma,
            lam=spec.lam,
            whiten_rewards=spec.whiten_rewards,
            fidelity=spec.fidelity,
        )

    def collect(self, step: int, state: dict[str, Any]) -> Collected[RolloutBatch]:
        """One step's rollouts, cut into the micro-batches of its updates.

        The old log-probabilities are computed on exactly these micro-batches, so that the first ratio is
        exactly one. A row stays in its minibatch over the epochs; the order of the minibatches is drawn anew.
        """
        from dataclasses import replace

        from alpacafarm.ops.kl import adapted
        from alpacafarm.training.online import Collected
        from alpacafarm.training.rollouts import advantages, cut, rollout_metrics

        spec, ctx = self.spec, self.ctx
        kl_coef = float(state.get("kl_coef", spec.kl_coef))
        rollouts, sequences, cuts, raw = self._rollouts(step)
        width = spec.sampling.max_new_tokens
        found = advantages(rollouts, replace(self.shaping, kl_coef=kl_coef), ctx.dist, width)
        minibatches = [
            cut(s, c, rollouts, found, fidelity=spec.fidelity, width=width)
            for s, c in zip(sequences, cuts, strict=True)
        ]
        metrics = {
            **rollout_metrics(rollouts, found, raw, ctx.dist, fidelity=spec.fidelity),
            "kl_coef": kl_coef,
        }
        if spec.adaptive_kl:
            observed = metrics["kl/clamped" if spec.fidelity == "published" else "kl"]
            state["kl_coef"] = adapted(
                kl_coef, observed, target=spec.adaptive_kl.target, k_beta=spec.adaptive_kl.k_beta
            )
        order = random.Random(stable_seed(ctx.seed, "minibatches", step))
        updates = [
            minibatches[i]
            for _ in range(spec.epochs_per_rollout)
            for i in order.sample(range(len(minibatches)), len(minibatches))
        ]
        return Collected(updates, metrics)

    def _rollouts(self, step: int) -> tuple[Rollouts, list[list[Any]], list[list[list[int]]], list[float]]:
        from alpacafarm.text.collate import Tokens
        from alpacafarm.training.rollouts import collate_micro_batches

        ctx, spec = self.ctx, self.spec
        chosen = prompt_indices(len(self.prompts), step, spec.rollouts_per_step, ctx.seed)
        mine = chosen[ctx.dist.rank :: ctx.dist.world]
        seeds = [stable_seed(ctx.seed, "rollout", step, n) for n in range(len(chosen))][
            ctx.dist.rank :: ctx.dist.world
        ]
        with ctx.meter.phase("generate"), self.policy.gathered() as model:
            sampled = ctx.sample(model, [self.prompts[i] for i in mine], spec.sampling, seeds=seeds)
        rows = [
            Tokens(self.prompts[i], response) for i, response in zip(mine, sampled.responses, strict=True)
        ]
        ctx.meter.count(
            tokens=sum(row.length for row in rows), samples=len(rows), computed=sampled.computed_tokens
        )
        with ctx.meter.phase("score"):
            raw = self.scorer.score(rows)
        cuts = self._cuts(rows)
        sequences = [collate_micro_batches(rows, c, self.tokenizer.pad_token_id) for c in cuts]
        with ctx.meter.phase("log-probabilities"):
            tensors = self._measured(len(rows), sequences, cuts)
        return self._standardised(rows, sampled.ended, raw, tensors), sequences, cuts, raw

    def _cuts(self, rows: list[Tokens]) -> list[list[list[int]]]:
        """Micro-batches of each minibatch: this rank's share of its rows, similar lengths together."""
        from alpacafarm.training.batches import deal

        share = -(-self.spec.optim.batch_size // self.ctx.dist.world)
        lengths = [row.length for row in rows]
        starts = range(0, len(rows), share)
        return [
            deal(
                range(i, min(i + share, len(rows))),
                lengths,
                micro_batch=self.ctx.micro_batch,
                rank=0,
                world=1,
            )
            for i in starts
        ]

    def _measured(
        self, rows: int, sequences: list[list[Any]], cuts: list[list[list[int]]]
    ) -> dict[str, Tensor]:
        """Log-probabilities of policy and reference and the values, BT."""
        import torch

        flat = [pair for s, c in zip(sequences, cuts, strict=True) for pair in zip(s, c, strict=True)]
        time = max(batch.mask_BT.size(1) for batch, _ in flat)
        found = {name: torch.zeros(rows, time) for name in ("logprob", "value", "reference", "mask")}
        temperature = self.spec.sampling.temperature
        for batch, indices in flat:
            on_device = batch.to(self.policy.device)
            with torch.no_grad():
                stats = self.policy(on_device, temperature=temperature)
                reference = self.reference(on_device, temperature=temperature)
            width = batch.mask_BT.size(1)
            pick = torch.tensor(indices)
            for name, value in (
                ("logprob", stats.logprob_BT),
                ("value", stats.value_BT),
                ("reference", reference.logprob_BT),
                ("mask", batch.mask_BT),
            ):
                found[name][pick, :width] = value.float().cpu()
        return found

    def _standardised(
        self, rows: list[Tokens], ended: list[bool], raw: list[float], tensors: Mapping[str, Tensor]
    ) -> Rollouts:
        import torch

        from alpacafarm.training.rollouts import Rollouts

        ended_B = torch.tensor(ended)
        score_B = (torch.tensor(raw) - self.shift) / self.scale - self.spec.missing_eos_penalty * (
            ~ended_B
        ).float()
        return Rollouts(
            rows=rows,
            ended_B=ended_B,
            mask_BT=tensors["mask"].bool(),
            logprob_BT=tensors["logprob"],
            reference_logprob_BT=tensors["reference"],
            value_BT=tensors["value"],
            score_B=score_B,
        )


def standardisation(spec: Spec, reward: Artifact) -> tuple[float, float]:
    """What to subtract from a raw score and what to divide it by."""
    from alpacafarm.errors import ArtifactError

    if spec.reward_std is None:
        return 0.0, 1.0
    if "reward_mean" not in reward.facts:
        raise ArtifactError(
            f"method.reward_std={spec.reward_std} needs the reward model's mean and deviation, "
            "which the given one does not record; set method.reward_std=null to use raw scores"
        )
    if not reward.facts["reward_std"]:
        raise ArtifactError(
            f"method.reward_std={spec.reward_std}: the reward model gave the same score to every answer "
            "that it was measured on, which cannot be scaled; give more varied pairs or set it to null"
        )
    return float(reward.facts["reward_mean"]), float(reward.facts["reward_std"])


def prompt_indices(prompts: int, step: int, count: int, seed: int) -> list[int]:
    """The prompts of one step: permutations of all prompts, one after the other, `count` at a time."""
    chosen: list[int] = []
    position = step * count
    while len(chosen) < count:
        epoch, offset = divmod(position, prompts)
        order = list(range(prompts))
        random.Random(stable_seed(seed, "prompts", epoch)).shuffle(order)
        taken = order[offset : offset + count - len(chosen)]
        chosen += taken
        position += len(taken)
    return chosen


def ppo_loss(policy: Engine, spec: Spec) -> LossFn[RolloutBatch]:
    """Clipped surrogate plus `value_coef` times the clipped value loss, summed over response tokens."""
    from alpacafarm.ops.policy import clipped_surrogate, clipped_value_loss

    def loss(batch: RolloutBatch) -> tuple[Tensor, dict[str, Tensor]]:
        stats = policy(batch.sequences, temperature=spec.sampling.temperature, with_entropy=True)
        mask = batch.sequences.mask_BT
        actor = clipped_surrogate(
            stats.logprob_BT, batch.logprob_BT, batch.advantage_BT, mask, clip=spec.clip
        )
        critic = clipped_value_loss(
            stats.value_BT, batch.value_BT, batch.return_BT, mask, clip=spec.value_clip
        )
        metrics = {
            "loss/policy": actor.loss.detach(),
            "loss/value": critic.loss.detach(),
            "clip_fraction": actor.clip_fraction,
            "value_clip_fraction": critic.clip_fraction,
            "approx_kl": actor.approx_kl,
            "entropy": stats.entropy_BT.detach().sum(),
            "ratio/mean": (actor.ratio_BT * mask).sum(),
        }
        return actor.loss + spec.value_coef * critic.loss, metrics

    return loss
