"""Policy gradients without a critic: REINFORCE (Williams 1992; Ahmadian et al. 2024, arXiv:2402.14740) and
its relatives RLOO (also Ahmadian et al.), GRPO (Shao et al. 2024, arXiv:2402.03300), Dr. GRPO (Liu et al.
2025, arXiv:2503.20783) and REINFORCE++ (Hu 2025, arXiv:2501.03262), which differ in the estimator of the
advantage."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from alpacafarm.judges.fresh import added, annotator, judge_problems, tally, verdicts
from alpacafarm.ports import Context, Engine, Inputs, LossFn, Upstream
from alpacafarm.selection.pick import trained
from alpacafarm.spec.base import Problem, refuse
from alpacafarm.spec.judge import JudgeSpec
from alpacafarm.spec.method import OnPolicySpec
from alpacafarm.stage import Stage
from alpacafarm.stats.tournament import matches, tournament

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm.rollout.onpolicy import Minibatch, Responses
    from alpacafarm.training.critic_free import PolicyBatch
    from alpacafarm.training.online import Collected
    from alpacafarm.training.rollouts import Rollouts

COMPARING = ("rloo", "grpo", "dr_grpo")  # estimators that need several responses to a prompt
WRONG = {  # what speaks against an estimator where it is refused
    "k1": "in the loss the expectation of its gradient ignores the reference",
    "clamped": "in the loss it only ever pulls down what the policy likes more",
    "k2": "in the reward its gradient is not that of the KL",
    "k3": "in the reward its gradient is not that of the KL",
}
UNIT = ("grpo", "reinforce_pp")  # whose advantages have deviation one, whatever the scale of the reward


class Spec(OnPolicySpec):
    """`reward`: the reward model's score, or a judge's verdicts between the responses to one prompt: the mean
    share of wins minus one half. `reward_std` and `missing_eos_penalty` are PPO's.

    `kl_coef` is measured against `reward_std` as in PPO. Where the KL is in the loss of `grpo` or
    `reinforce_pp`, it is measured against their advantages, of deviation one. `clip=null` clips nothing;
    `clip_high=null` is the same as `clip`.
    """

    estimator: Literal["reinforce", "rloo", "grpo", "dr_grpo", "reinforce_pp"]
    samples_per_prompt: int = Field(ge=1)
    reward: Literal["model", "judge"]
    judge: JudgeSpec | None
    reward_std: float | None = Field(gt=0)
    missing_eos_penalty: float = Field(ge=0)
    kl_coef: float = Field(ge=0)
    kl_placement: Literal["reward", "loss"]
    kl_estimator: Literal["k1", "k2", "k3", "clamped"]
    clip: float | None = Field(gt=0, lt=1)
    clip_high: float | None = Field(gt=0)
    loss_normalisation: Literal["token", "sequence", "constant"]

    @property
    def group(self) -> int:
        return self.samples_per_prompt

    @property
    def kl_in_reward(self) -> float:
        """Weight of the KL beside scores of deviation one."""
        return self.kl_coef / (self.reward_std or 1.0) if self.kl_placement == "reward" else 0.0

    @property
    def kl_in_loss(self) -> float:
        """Weight of the KL beside the surrogate."""
        if self.kl_placement == "reward":
            return 0.0
        return self.kl_coef if self.estimator in UNIT else self.kl_coef / (self.reward_std or 1.0)

    @model_validator(mode="after")
    def values_go_together(self) -> Self:
        problems = [*self._group_problems(), *self._kl_problems()]
        problems += judge_problems(self.judge, asked=self.reward == "judge", key="reward", otherwise="model")
        if self.reward == "judge" and self.reward_std is not None:
            text = (
                "no deviation is known of a judge's scores, which lie within 0.5 of 0; set .reward_std=null"
            )
            problems.append(Problem("reward_std", self.reward_std, text))
        if self.clip is None and self.clip_high is not None:
            text = "must be null where .clip=null clips nothing; set .clip=0.2, or .clip_high=null"
            problems.append(Problem("clip_high", self.clip_high, text))
        if problems:
            refuse(*problems)
        return self

    def _group_problems(self) -> list[Problem]:
        if self.samples_per_prompt > 1:
            return []
        if self.estimator in COMPARING:
            text = (
                f"must be at least 2, for estimator={self.estimator} compares the responses to one prompt; "
                "set .samples_per_prompt=4, or .estimator=reinforce"
            )
            return [Problem("samples_per_prompt", self.samples_per_prompt, text)]
        if self.reward == "judge":
            text = (
                "must be at least 2, for a judge compares the responses to one prompt; "
                "set .samples_per_prompt=4, or .reward=model"
            )
            return [Problem("samples_per_prompt", self.samples_per_prompt, text)]
        return []

    def _kl_problems(self) -> list[Problem]:
        allowed = {"reward": ("k1", "clamped"), "loss": ("k2", "k3")}[self.kl_placement]
        if self.kl_estimator in allowed:
            return []
        other = "loss" if self.kl_placement == "reward" else "reward"
        text = (
            f"must be {' or '.join(allowed)} with .kl_placement={self.kl_placement}: "
            f"{WRONG[self.kl_estimator]}; "
            f"set .kl_estimator={allowed[0]}, or .kl_placement={other}"
        )
        return [Problem("kl_estimator", self.kl_estimator, text)]


def plan(spec: Spec, up: Upstream) -> Stage:
    comparisons = spec.steps * spec.rollouts_per_step * (spec.samples_per_prompt - 1) // 2
    asked, bill = annotator(spec.judge, comparisons, up)
    return trained(
        "alpacafarm.methods.reinforce:train",
        spec,
        up,
        inputs={"init": up.sft(), **asked, "rows": up.rows("unlabeled")},
        needs=spec.work,
        bill=bill,
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    from alpacafarm.training.online import improve

    policy = ctx.trainable(inputs["init"], spec.optim)
    collector = Collector(spec, inputs, ctx, policy)
    improve(policy, collector.collect, policy_gradient(policy, spec), spec=spec, ctx=ctx)
    ctx.record(estimator=spec.estimator, kl_estimator=spec.kl_estimator, kl_placement=spec.kl_placement)
    if spec.judge is not None:
        ctx.spend(judge_calls=int(collector.cost["judge_calls"]), price_usd=collector.cost["price_usd"])
        ctx.record(failed_verdicts=int(collector.cost["failed_verdicts"]))
    policy.export(ctx.out / "model")


class Collector:
    """Samples, scores and measures one step's rollouts. All that is random comes from seed, step and row."""

    def __init__(self, spec: Spec, inputs: Inputs, ctx: Context, policy: Engine) -> None:
        from alpacafarm.rollout.onpolicy import Scale, fitting_prompts, standardisation

        self.spec, self.ctx, self.policy = spec, ctx, policy
        self.reference = ctx.frozen(inputs["init"])
        self.tokenizer = ctx.tokenizer(inputs["init"])
        self.prompts = fitting_prompts(inputs["rows"], inputs["init"], ctx)
        self.judge = ctx.judge(spec.judge, inputs) if spec.judge is not None else None
        self.scorer = ctx.scorer(inputs["reward"]) if spec.judge is None else None
        self.scale = Scale(0.0, 1.0)
        if spec.judge is None:
            self.scale = standardisation(inputs["reward"], spec.reward_std)
        self.cost: dict[str, float] = {}

    def collect(self, step: int, state: dict[str, Any]) -> Collected[PolicyBatch]:
        """One step's rollouts, cut into the micro-batches of its updates. `state` has the judge's cost."""
        from alpacafarm.rollout.onpolicy import over_epochs
        from alpacafarm.training.critic_free import advantages
        from alpacafarm.training.online import Collected
        from alpacafarm.training.rollouts import sample_metrics

        spec, ctx = self.spec, self.ctx
        rollouts, minibatches, cost = self.rollouts(step)
        state.update(added(state, cost))
        self.cost = state
        found = advantages(
            rollouts,
            ctx.dist,
            estimator=spec.estimator,
            group=spec.group,
            kl_weight=spec.kl_in_reward,
            kl=spec.kl_estimator,
        )
        per_response = {
            "shaped_reward/mean": found.reward_BT.double().sum(1),
            "advantage/zero": (found.advantage_BT == 0).all(1).double(),
        }
        metrics = {
            **sample_metrics(rollouts, ctx.dist, per_response),
            **({"failed_verdicts": cost["failed_verdicts"]} if cost else {}),
            "kl_coef": spec.kl_coef,
        }
        batches = self.batches(rollouts, found.advantage_BT, minibatches)
        order = over_epochs(len(batches), spec.epochs_per_rollout, step=step, seed=ctx.seed)
        return Collected([batches[i] for i in order], metrics)

    def rollouts(self, step: int) -> tuple[Rollouts, list[Minibatch], dict[str, float]]:
        """This rank's rollouts, the micro-batches that they were measured on, and what judging cost."""
        from alpacafarm.rollout.onpolicy import draw, measured_rollouts

        ctx, spec = self.ctx, self.spec
        drawn = draw(
            self.policy,
            self.prompts,
            spec.sampling,
            ctx,
            step=step,
            rollouts=spec.rollouts_per_step,
            samples_per_prompt=spec.samples_per_prompt,
        )
        with ctx.meter.phase("score"):
            raw, cost = self.scores(drawn)
        rollouts, batches, _ = measured_rollouts(
            self.policy,
            self.reference,
            drawn,
            raw,
            self.scale.standardised(raw, drawn.ended, missing_eos_penalty=spec.missing_eos_penalty),
            spec=spec,
            pad_id=self.tokenizer.pad_token_id,
            ctx=ctx,
        )
        return rollouts, batches, cost

    def scores(self, drawn: Responses) -> tuple[list[float], dict[str, float]]:
        """The raw score of every response, and what the judge cost on all ranks; {} without one."""
        if self.scorer is not None:
            return self.scorer.score(drawn.rows), {}
        from alpacafarm.rollout.onpolicy import group_pairs
        from alpacafarm.text.tokenise import decode_responses

        assert self.judge is not None
        assert self.spec.judge is not None
        group, games = self.spec.group, matches(self.spec.group)
        texts = decode_responses(self.tokenizer, [row.response for row in drawn.rows])
        found = verdicts(self.judge, self.spec.judge, group_pairs(drawn, self.prompts, texts, games, group))
        raw: list[float] = []
        for start in range(0, len(found), len(games)):
            told = found[start : start + len(games)]
            preferences = {game: verdict.preference for game, verdict in zip(games, told, strict=True)}
            raw += tournament(group, preferences)
        return raw, tally(found, self.ctx.dist)

    def batches(
        self, rollouts: Rollouts, advantage_BT: Tensor, minibatches: list[Minibatch]
    ) -> list[list[PolicyBatch]]:
        """The minibatches with everything that the loss needs."""
        from functools import partial

        from alpacafarm.training.critic_free import cut, token_shares

        tokens = self.ctx.dist.total([sum(s.weight for s in m.sequences) for m in minibatches])
        return [
            cut(
                minibatch.sequences,
                minibatch.indices,
                rollouts,
                advantage_BT,
                partial(
                    token_shares,
                    normalisation=self.spec.loss_normalisation,
                    tokens=count,
                    rows=self.spec.optim.batch_size,
                    max_new_tokens=self.spec.sampling.max_new_tokens,
                ),
            )
            for minibatch, count in zip(minibatches, tokens, strict=True)
        ]


def policy_gradient(policy: Engine, spec: Spec) -> LossFn[PolicyBatch]:
    """The clipped surrogate, and the KL where it is in the loss; metrics are sums over response tokens."""
    from alpacafarm.training.critic_free import policy_loss

    clip = math.inf if spec.clip is None else spec.clip

    def loss(batch: PolicyBatch) -> tuple[Tensor, dict[str, Tensor]]:
        stats = policy(batch.sequences, temperature=spec.sampling.temperature, with_entropy=True)
        terms = policy_loss(
            stats.logprob_BT,
            batch,
            clip=clip,
            clip_high=spec.clip_high,
            kl_weight=spec.kl_in_loss,
            kl=spec.kl_estimator,
        )
        metrics = {
            "loss/policy": terms.policy.loss.detach(),
            "loss/kl": terms.kl.detach(),
            "clip_fraction": terms.policy.clip_fraction,
            "approx_kl": terms.policy.approx_kl,
            "entropy": stats.entropy_BT.detach().sum(),
            "ratio/mean": (terms.policy.ratio_BT * batch.sequences.mask_BT).sum(),
        }
        return terms.policy.loss + terms.kl, metrics

    return loss
