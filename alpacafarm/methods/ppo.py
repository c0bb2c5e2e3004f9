"""Proximal policy optimisation from a reward model (Schulman et al. 2017; Dubois et al. 2023, section 4;
examples/scripts/rlhf_ppo.sh)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from alpacafarm.ports import Context, Engine, Inputs, LossFn, Upstream
from alpacafarm.selection.pick import trained
from alpacafarm.spec.base import Strict
from alpacafarm.spec.method import OnPolicySpec
from alpacafarm.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm.rollout.onpolicy import Minibatch
    from alpacafarm.training.online import Collected
    from alpacafarm.training.rollouts import CriticRollouts, RolloutBatch


class AdaptiveKL(Strict):
    """Moves `kl_coef` towards a KL of `target` nats per response (Ziegler et al. 2019, section 2.2)."""

    target: float = Field(gt=0)
    k_beta: float = Field(gt=0)


VERSION = 2  # whitened rewards of `corrected` are scaled only: their mean does not pay for length


class Spec(OnPolicySpec):
    """`reward_std`: scores are centred and scaled so that the SFT model's responses have mean 0 and this
    deviation, which is what gives `kl_coef` its meaning; null leaves them raw. `missing_eos_penalty` is
    subtracted from the standardised score of a response that did not end.
    """

    fidelity: Literal["corrected", "published"]
    kl_coef: float = Field(ge=0)
    adaptive_kl: AdaptiveKL | None
    reward_std: float | None = Field(gt=0)
    missing_eos_penalty: float = Field(ge=0)
    clip: float = Field(gt=0, lt=1)
    value_clip: float = Field(gt=0)
    value_coef: float = Field(ge=0)
    value_lr_scale: float = Field(gt=0)
    gamma: float = Field(ge=0, le=1)
    lam: float = Field(ge=0, le=1)
    whiten_rewards: bool


def plan(spec: Spec, up: Upstream) -> Stage:
    return trained(
        "alpacafarm.methods.ppo:train",
        spec,
        up,
        inputs={"init": up.sft(), "reward": up.reward(), "rows": up.rows("unlabeled")},
        needs=spec.work,
        version=VERSION,
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
    improve(policy, collector.collect, ppo_loss(policy, spec), spec=spec, ctx=ctx)
    ctx.record(kl_estimator=collector.shaping.estimator, fidelity=spec.fidelity, processes=ctx.dist.world)
    policy.export(ctx.out / "model")


class Collector:
    """Samples, scores and measures one step's rollouts. All that is random comes from seed, step and row."""

    def __init__(self, spec: Spec, inputs: Inputs, ctx: Context, policy: Engine) -> None:
        from alpacafarm.rollout.onpolicy import fitting_prompts, standardisation
        from alpacafarm.training.rollouts import Shaping

        self.spec, self.ctx, self.policy = spec, ctx, policy
        self.reference = ctx.frozen(inputs["init"])
        self.scorer = ctx.scorer(inputs["reward"])
        self.pad_id = ctx.tokenizer(inputs["init"]).pad_token_id
        self.scale = standardisation(inputs["reward"], spec.reward_std)
        self.prompts = fitting_prompts(inputs["rows"], inputs["init"], ctx)
        self.shaping = Shaping(
            kl_coef=spec.kl_coef,
            reward_std=spec.reward_std or 1.0,
            gamma=spec.gamma,
            lam=spec.lam,
            whiten_rewards=spec.whiten_rewards,
            fidelity=spec.fidelity,
        )

    def collect(self, step: int, state: dict[str, Any]) -> Collected[RolloutBatch]:
        """One step's rollouts, cut into the micro-batches of its updates."""
        from dataclasses import replace

        from alpacafarm.ops.kl import adapted
        from alpacafarm.rollout.onpolicy import over_epochs
        from alpacafarm.training.online import Collected
        from alpacafarm.training.rollouts import advantages, cut, rollout_metrics

        spec, ctx = self.spec, self.ctx
        kl_coef = float(state.get("kl_coef", spec.kl_coef))
        rollouts, minibatches = self.rollouts(step)
        width = spec.sampling.max_new_tokens
        found = advantages(rollouts, replace(self.shaping, kl_coef=kl_coef), ctx.dist, width)
        batches = [
            cut(m.sequences, m.indices, rollouts, found, fidelity=spec.fidelity, width=width)
            for m in minibatches
        ]
        metrics = {
            **rollout_metrics(rollouts, found, ctx.dist, fidelity=spec.fidelity),
            "kl_coef": kl_coef,
        }
        if spec.adaptive_kl:
            observed = metrics["kl/clamped" if spec.fidelity == "published" else "kl"]
            state["kl_coef"] = adapted(
                kl_coef, observed, target=spec.adaptive_kl.target, k_beta=spec.adaptive_kl.k_beta
            )
        order = over_epochs(len(batches), spec.epochs_per_rollout, step=step, seed=ctx.seed)
        return Collected([batches[i] for i in order], metrics)

    def rollouts(self, step: int) -> tuple[CriticRollouts, list[Minibatch]]:
        """This rank's rollouts, and the micro-batches that they were measured on."""
        from alpacafarm.rollout.onpolicy import draw, measured_rollouts
        from alpacafarm.training.rollouts import CriticRollouts

        ctx, spec = self.ctx, self.spec
        drawn = draw(
            self.policy, self.prompts, spec.sampling, ctx, step=step, rollouts=spec.rollouts_per_step
        )
        with ctx.meter.phase("score"):
            raw = self.scorer.score(drawn.rows)
        rollouts, batches, own = measured_rollouts(
            self.policy,
            self.reference,
            drawn,
            raw,
            self.scale.standardised(raw, drawn.ended, missing_eos_penalty=spec.missing_eos_penalty),
            spec=spec,
            pad_id=self.pad_id,
            ctx=ctx,
            further=["value_BT"],
        )
        return CriticRollouts(**vars(rollouts), value_BT=own["value_BT"]), batches


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
