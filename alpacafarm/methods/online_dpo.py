"""Direct preference optimisation on the policy's own pairs, judged as it samples them (Guo et al. 2024,
arXiv:2402.04792)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from alpacafarm.judges.fresh import added, annotator, judge_problems, tally, verdicts
from alpacafarm.ports import Context, Engine, Inputs, LossFn, Upstream
from alpacafarm.selection.pick import trained
from alpacafarm.spec.base import Problem, refuse
from alpacafarm.spec.judge import JudgeSpec
from alpacafarm.spec.method import OnPolicySpec
from alpacafarm.stage import Stage

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm.ops.preference import PairLoss
    from alpacafarm.rollout.onpolicy import Minibatch, Responses
    from alpacafarm.training.fresh_pairs import FreshPairs
    from alpacafarm.training.online import Collected
    from alpacafarm.training.rollouts import Rollouts


class Spec(OnPolicySpec):
    """Two responses to each prompt; `optim.batch_size` counts responses, so a batch has half as many pairs.

    `annotator`: the reward model, whose higher score wins, or a judge. `missing_eos_penalty` (nats) is
    subtracted from the reward model's score of a response that did not end.
    """

    annotator: Literal["reward", "judge"]
    judge: JudgeSpec | None
    loss: Literal["dpo", "ipo", "hinge"]
    beta: float = Field(gt=0)
    missing_eos_penalty: float = Field(ge=0)

    @property
    def group(self) -> int:
        return 2

    @model_validator(mode="after")
    def values_go_together(self) -> Self:
        problems = judge_problems(
            self.judge, asked=self.annotator == "judge", key="annotator", otherwise="reward"
        )
        if self.annotator == "judge" and self.missing_eos_penalty:
            text = ".annotator=judge gives no scores to subtract it from; set .missing_eos_penalty=0"
            problems.append(Problem("missing_eos_penalty", self.missing_eos_penalty, text))
        if problems:
            refuse(*problems)
        return self


def plan(spec: Spec, up: Upstream) -> Stage:
    comparisons = spec.steps * spec.rollouts_per_step // 2
    asked, bill = annotator(spec.judge, comparisons, up)
    return trained(
        "alpacafarm.methods.online_dpo:train",
        spec,
        up,
        inputs={"init": up.sft(), **asked, "rows": up.rows("unlabeled")},
        needs=spec.work,
        bill=bill,
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    """Records how many prompts gave no pair: both responses were the same text, or the verdict failed."""
    from alpacafarm.training.online import improve

    policy = ctx.trainable(inputs["init"], spec.optim)
    collector = Collector(spec, inputs, ctx, policy)
    improve(policy, collector.collect, pair_loss(policy, spec), spec=spec, ctx=ctx)
    cost = collector.cost
    ctx.spend(judge_calls=int(cost.get("judge_calls", 0)), price_usd=cost.get("price_usd", 0.0))
    ctx.record(equal_pairs=int(cost["equal_pairs"]), failed_verdicts=int(cost.get("failed_verdicts", 0)))
    policy.export(ctx.out / "model")


class Collector:
    """Samples, judges and measures one step's pairs. All that is random comes from seed, step and row."""

    def __init__(self, spec: Spec, inputs: Inputs, ctx: Context, policy: Engine) -> None:
        from alpacafarm.rollout.onpolicy import fitting_prompts

        self.spec, self.ctx, self.policy = spec, ctx, policy
        self.reference = ctx.frozen(inputs["init"])
        self.tokenizer = ctx.tokenizer(inputs["init"])
        self.prompts = fitting_prompts(inputs["rows"], inputs["init"], ctx)
        self.judge = ctx.judge(spec.judge, inputs) if spec.judge is not None else None
        self.scorer = ctx.scorer(inputs["reward"]) if spec.judge is None else None
        self.cost: dict[str, float] = {}

    def collect(self, step: int, state: dict[str, Any]) -> Collected[FreshPairs]:
        """One step's pairs, cut into the micro-batches of its updates. `state` has the counts and costs.

        A minibatch without any pair, on all ranks, is no update.
        """
        from alpacafarm.rollout.onpolicy import over_epochs
        from alpacafarm.training.fresh_pairs import fresh_pairs
        from alpacafarm.training.online import Collected
        from alpacafarm.training.rollouts import sample_metrics

        spec, ctx = self.spec, self.ctx
        rollouts, minibatches, labels, cost = self.rollouts(step)
        state.update(added(state, cost))
        self.cost = state
        batches = [fresh_pairs(m.sequences, m.indices, rollouts, labels) for m in minibatches]
        pairs = ctx.dist.total([sum(batch.weight for batch in part) for part in batches])
        order = over_epochs(len(batches), spec.epochs_per_rollout, step=step, seed=ctx.seed)
        metrics = {
            **sample_metrics(rollouts, ctx.dist, {}),
            "pairs": sum(pairs),
            "equal_pairs": cost["equal_pairs"],
        }
        return Collected([batches[i] for i in order if pairs[i]], metrics)

    def rollouts(self, step: int) -> tuple[Rollouts, list[Minibatch], list[float | None], dict[str, float]]:
        """This rank's responses, the micro-batches that they were measured on, of each pair the probability
        that the second is the better one (None: no pair), and what that cost on all ranks."""
        from alpacafarm.rollout.onpolicy import Scale, draw, measured_rollouts

        ctx, spec = self.ctx, self.spec
        drawn = draw(
            self.policy,
            self.prompts,
            spec.sampling,
            ctx,
            step=step,
            rollouts=spec.rollouts_per_step,
            samples_per_prompt=spec.group,
        )
        with ctx.meter.phase("score"):
            raw, labels, cost = self.labels(drawn)
        score_B = Scale(0.0, 1.0).standardised(raw, drawn.ended, missing_eos_penalty=spec.missing_eos_penalty)
        rollouts, batches, _ = measured_rollouts(
            self.policy,
            self.reference,
            drawn,
            raw,
            score_B,
            spec=spec,
            pad_id=self.tokenizer.pad_token_id,
            ctx=ctx,
            together=spec.group,
        )
        return rollouts, batches, labels, cost

    def labels(self, drawn: Responses) -> tuple[list[float], list[float | None], dict[str, float]]:
        """A raw score of every response, a label of every pair, and the cost on all ranks.

        A judge's score of a response is how often it is the better one, minus one half.
        """
        from alpacafarm.rollout.onpolicy import group_pairs
        from alpacafarm.text.tokenise import decode_responses

        texts = decode_responses(self.tokenizer, [row.response for row in drawn.rows])
        equal = [one == two for one, two in zip(texts[::2], texts[1::2], strict=True)]
        (count,) = self.ctx.dist.total([sum(equal)])
        if self.scorer is not None:
            raw = self.scorer.score(drawn.rows)
            penalty = self.spec.missing_eos_penalty
            scores = [r - penalty * (not ended) for r, ended in zip(raw, drawn.ended, strict=True)]
            told: list[float | None] = [
                0.5 if one == two else float(two > one)
                for one, two in zip(scores[::2], scores[1::2], strict=True)
            ]
            cost = {"equal_pairs": count}
        else:
            assert self.judge is not None
            assert self.spec.judge is not None
            pairs = group_pairs(drawn, self.prompts, texts, [(0, 1)], self.spec.group)
            found = verdicts(self.judge, self.spec.judge, pairs)
            told = [None if v.preference is None else v.preference - 1 for v in found]
            raw = [x for p in told for x in ((0.0, 0.0) if p is None else (0.5 - p, p - 0.5))]
            cost = {"equal_pairs": count, **tally(found, self.ctx.dist)}
        return raw, [None if same else p for same, p in zip(equal, told, strict=True)], cost


def pair_loss(policy: Engine, spec: Spec) -> LossFn[FreshPairs]:
    """The loss of the pairs that there are, summed over them; metrics as those of `methods.dpo`."""
    from alpacafarm.methods.dpo import sides
    from alpacafarm.ops.preference import labelled

    chosen_loss = losses(spec.beta)[spec.loss]

    def loss(batch: FreshPairs) -> tuple[Tensor, dict[str, Tensor]]:
        side_1, side_2 = sides(policy, batch, temperature=spec.sampling.temperature)
        loss_B = labelled(chosen_loss, side_1, side_2, batch.probability_2_B, 1 - batch.probability_2_B)
        sign_B = (batch.probability_2_B - 0.5).sign()
        lead_B = sign_B * spec.beta * (side_2.logratio - side_1.logratio).detach()
        metrics = {
            "margin": (lead_B * batch.is_pair_B).sum(),
            "accuracy": ((lead_B > 0) * batch.is_pair_B).sum(),
        }
        return (loss_B * batch.is_pair_B).sum(), metrics

    return loss


def losses(beta: float) -> dict[str, PairLoss]:
    from alpacafarm.ops import preference

    return {
        "dpo": partial(preference.dpo, beta=beta),
        "ipo": partial(preference.ipo, beta=beta),
        "hinge": partial(preference.hinge, beta=beta),
    }
