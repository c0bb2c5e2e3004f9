"""Direct preference optimisation and its relatives: a policy from judged pairs without a reward model
(Rafailov et al. 2023, arXiv:2305.18290; examples/dpo.py and examples/scripts/dpo.sh).

Several methods of `conf/method` are settings of this module: dpo, cdpo, robust, ipo, hinge, simpo, orpo,
dpo_nll, dpo_norm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from pydantic import Field, model_validator

from alpacafarm.data.rows import read_rows
from alpacafarm.ports import Context, Engine, Inputs, LossFn, Upstream
from alpacafarm.rollout.reference import read_logprobs, reference_stage
from alpacafarm.selection.pick import trained
from alpacafarm.spec.base import Problem, refuse
from alpacafarm.spec.method import OptimSpec, TrainedSpec
from alpacafarm.stage import Node, Stage
from alpacafarm.types import Preference

if TYPE_CHECKING:
    from torch import Tensor

    from alpacafarm.ops.preference import PairLoss, Side
    from alpacafarm.text.collate import PairBatch
    from alpacafarm.training.pairs import ReferencedPairs

WITHOUT_REFERENCE = ("simpo", "orpo")  # which are also length-normalised by their definition


class Spec(TrainedSpec):
    """A loss of `ops.preference`, and what may stand beside it.

    `beta` scales log-ratios (for `orpo` it is the weight of the odds ratio), `target_margin` is simpo's
    gamma, `nll_coef` weighs the chosen response's negative log-likelihood per token. `length_normalised`
    takes log-probabilities per token. `correction` says what is made of a label that is wrong with
    `flip_probability`.
    """

    fidelity: Literal["corrected", "published"]  # published: a tie is output 2 against itself
    loss: Literal["dpo", "ipo", "hinge", "simpo", "orpo"]
    beta: float = Field(gt=0)
    target_margin: float = Field(ge=0)
    nll_coef: float = Field(ge=0)
    length_normalised: bool
    correction: Literal["none", "smooth", "robust"]
    flip_probability: float = Field(ge=0, le=0.5)
    epochs: int = Field(ge=1)

    @model_validator(mode="after")
    def options_go_together(self) -> Spec:
        problems = [*self._loss_problems(), *self._label_problems(), *self._fidelity_problems()]
        if problems:
            refuse(*problems)
        return self

    def _loss_problems(self) -> list[Problem]:
        problems = []
        if self.target_margin and self.loss != "simpo":
            text = f".loss={self.loss} has no target margin; set .target_margin=0 or .loss=simpo"
            problems.append(Problem("target_margin", self.target_margin, text))
        if self.loss in WITHOUT_REFERENCE and not self.length_normalised:
            text = (
                f"must be true for .loss={self.loss}, which is defined per token: nothing else keeps it from "
                "making responses longer; set .length_normalised=true"
            )
            problems.append(Problem("length_normalised", False, text))
        if self.loss == "orpo" and not self.nll_coef:
            text = (
                "must be greater than 0 for .loss=orpo: without a reference only the likelihood of chosen "
                "responses keeps the policy a language model; set .nll_coef=1"
            )
            problems.append(Problem("nll_coef", self.nll_coef, text))
        return problems

    def _label_problems(self) -> list[Problem]:
        if self.correction == "none" and self.flip_probability:
            text = (
                ".correction=none would not look at it; set .correction=robust or .correction=smooth, or "
                ".flip_probability=0"
            )
            return [Problem("flip_probability", self.flip_probability, text)]
        if self.correction != "none" and self.flip_probability >= 0.5:
            text = (
                f"must be below 0.5 for .correction={self.correction}: labels that are wrong half of the "
                "time say nothing; set .flip_probability to their true rate"
            )
            return [Problem("flip_probability", self.flip_probability, text)]
        return []

    def _fidelity_problems(self) -> list[Problem]:
        plain = self.loss == "dpo" and self.correction == "none"
        if self.fidelity == "corrected" or (plain and not self.nll_coef and not self.length_normalised):
            return []
        text = (
            "the original has DPO alone, so that .loss=dpo, .nll_coef=0, .length_normalised=false and "
            ".correction=none are required; set .fidelity=corrected"
        )
        return [Problem("fidelity", self.fidelity, text)]


def plan(spec: Spec, up: Upstream) -> Stage:
    pairs = up.preferences()
    inputs: dict[str, Node] = {"init": up.sft(), "pairs": pairs}
    if spec.loss not in WITHOUT_REFERENCE:
        inputs["reference"] = reference_stage(up, {"pairs": pairs})
    return trained(
        "alpacafarm.methods.dpo:train",
        spec,
        up,
        inputs=inputs,
        needs=f"{spec.epochs} epoch(s) over the pairs",
    )


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    """Logs, beside the loss, per pair: `margin`, the lead of the chosen response's implied reward in nats;
    `accuracy`, the share of pairs where it leads (ties count as wrong, as for a reward model); and each
    side's `logratio` to the reference (`logprob` where there is none), summed over its tokens.

    Both log-ratios usually fall, the rejected one further: the losses only ask for the difference.
    """
    fit_policy(spec, inputs, ctx, lambda policy: preference_loss(policy, spec))


class PairTraining(Protocol):
    """What the spec of any method must have that trains a policy on pairs."""

    @property
    def name(self) -> str: ...
    @property
    def epochs(self) -> int: ...
    @property
    def optim(self) -> OptimSpec: ...
    @property
    def snapshot_every(self) -> int | None: ...


def fit_policy(
    spec: PairTraining,
    inputs: Inputs,
    ctx: Context,
    loss_of: Callable[[Engine], LossFn[ReferencedPairs]],
) -> None:
    """Trains `init` on `pairs` with the loss that `loss_of(policy)` gives, and publishes the policy.

    Pairs have the reference's log-probabilities where `inputs` has a `reference`.
    """
    from alpacafarm.training.offline import fit
    from alpacafarm.training.pairs import pair_steps, tokenised, with_reference, without_reference

    tokenizer = ctx.tokenizer(inputs["init"])
    judged = read_rows(inputs["pairs"].path / "pairs.jsonl", Preference)
    pairs = tokenised(judged, tokenizer, ctx, purpose="a policy")
    attach: Callable[[PairBatch, Sequence[int]], ReferencedPairs] = without_reference
    if "reference" in inputs:
        first, second = (read_logprobs(inputs["reference"], side) for side in (pairs.first, pairs.second))
        attach = with_reference(first, second)
    policy = ctx.trainable(inputs["init"], spec.optim)
    steps = pair_steps(
        pairs,
        range(len(pairs)),
        epochs=spec.epochs,
        optim=spec.optim,
        pad_id=tokenizer.pad_token_id,
        ctx=ctx,
        attach=attach,
    )
    fit(
        policy,
        steps,
        loss_of(policy),
        optim=spec.optim,
        ctx=ctx,
        label=spec.name,
        snapshot_every=spec.snapshot_every,
    )
    ctx.record(ties=sum(row.is_tie for row in pairs.rows))
    policy.export(ctx.out / "model")


def preference_loss(policy: Engine, spec: Spec) -> LossFn[ReferencedPairs]:
    """The loss of labelled pairs, summed over pairs."""
    from alpacafarm.ops.preference import label_weights, labelled

    pair_loss = chosen_loss(spec)

    def loss(batch: ReferencedPairs) -> tuple[Tensor, dict[str, Tensor]]:
        side_1, side_2 = sides(policy, batch)
        probability_2_B = batch.probability_2_B
        weights = label_weights(probability_2_B, spec.correction, spec.flip_probability)
        loss_B = labelled(pair_loss, side_1, side_2, *weights)
        if spec.fidelity == "published":
            is_decided_B = (probability_2_B == 0) | (probability_2_B == 1)
            loss_B = loss_B.where(is_decided_B, pair_loss(side_2, side_2))
        return loss_B.sum(), measured(side_1, side_2, probability_2_B, spec)

    return loss


def chosen_loss(spec: Spec) -> PairLoss:
    """The loss of a pair whose label is certain."""
    from alpacafarm.ops import preference

    losses: dict[str, PairLoss] = {
        "dpo": partial(preference.dpo, beta=spec.beta),
        "ipo": partial(preference.ipo, beta=spec.beta),
        "hinge": partial(preference.hinge, beta=spec.beta),
        "simpo": partial(preference.simpo, beta=spec.beta, target_margin=spec.target_margin),
        "orpo": partial(preference.orpo, beta=spec.beta),
    }

    def loss(chosen: Side, rejected: Side) -> Tensor:
        if spec.length_normalised:
            chosen, rejected = chosen.per_token(), rejected.per_token()
        loss_B = losses[spec.loss](chosen, rejected)
        return loss_B + spec.nll_coef * preference.likelihood(chosen, rejected) if spec.nll_coef else loss_B

    return loss


def sides(policy: Engine, batch: ReferencedPairs, *, temperature: float = 1.0) -> tuple[Side, Side]:
    """Output 1 and output 2 of each pair, in one forward pass."""
    from alpacafarm.ops.logprobs import sequence_sum
    from alpacafarm.ops.preference import Side

    mask = batch.sequences.mask_BT
    logprob_1, logprob_2 = sequence_sum(
        policy(batch.sequences, temperature=temperature).logprob_BT, mask
    ).chunk(2)
    tokens_1, tokens_2 = mask.sum(1).chunk(2)
    reference_1, reference_2 = (None, None) if batch.reference_2B is None else batch.reference_2B.chunk(2)
    return Side(logprob_1, reference_1, tokens_1), Side(logprob_2, reference_2, tokens_2)


def measured(side_1: Side, side_2: Side, probability_2_B: Tensor, spec: Spec) -> dict[str, Tensor]:
    """What `train` says is logged, summed over pairs. Of a tie each side is half the chosen one."""
    sign_B = (probability_2_B - 0.5).sign()
    name = "logprob" if side_1.reference_B is None else "logratio"
    value_1_B, value_2_B = (value(side) for side in (side_1, side_2))
    reward_1_B, reward_2_B = (
        spec.beta * value(side.per_token() if spec.length_normalised else side) for side in (side_1, side_2)
    )
    lead_B = sign_B * (reward_2_B - reward_1_B)
    chosen_B = (value_1_B + value_2_B + sign_B * (value_2_B - value_1_B)) / 2
    return {
        "margin": lead_B.detach().sum(),
        "accuracy": (lead_B > 0).sum(),
        f"{name}/chosen": chosen_B.detach().sum(),
        f"{name}/rejected": (value_1_B + value_2_B - chosen_B).detach().sum(),
    }


def value(side: Side) -> Tensor:
    return side.logprob_B if side.reference_B is None else side.logratio
