"""Kahneman-Tversky optimisation: a policy from single responses that were liked or not
(Ethayarajh et al. 2024, arXiv:2402.01306).

The responses are both sides of judged pairs, one side of each (`unpaired`), or the user's own with thumbs
(`data.thumbs`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from alpacafarm.data.rows import read_rows
from alpacafarm.errors import PlanError
from alpacafarm.ports import Context, Engine, Inputs, LossFn, Upstream
from alpacafarm.rollout.reference import read_logprobs, reference_stage, write_logprobs
from alpacafarm.selection.pick import trained
from alpacafarm.spec.base import Strict
from alpacafarm.spec.method import TrainedSpec
from alpacafarm.stage import Kind, Node, Stage
from alpacafarm.types import Preference, Thumb

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from alpacafarm.training.thumbs import ThumbBatch, TokenThumbs


class Spec(TrainedSpec):
    """`optim.batch_size` counts responses. The weights balance the two kinds: the paper keeps the ratio of
    weight times number, desirable to undesirable, between 1 and 4/3."""

    unpaired: bool
    beta: float = Field(gt=0)
    desirable_weight: float = Field(gt=0)
    undesirable_weight: float = Field(gt=0)
    epochs: int = Field(ge=1)


class MismatchedSpec(Strict):
    """What decides which responses there are, and so with which others their prompts are put together."""

    unpaired: bool


def plan(spec: Spec, up: Upstream) -> Stage:
    thumbs = up.thumbs()
    if thumbs is not None and not spec.unpaired:
        raise PlanError(
            "method.unpaired=false: it learns from judged pairs, and data.thumbs names single answers; set "
            "method.unpaired=true to learn from them, or data.thumbs=null"
        )
    judged: dict[str, Node] = {"pairs": up.preferences()} if thumbs is None else {"thumbs": thumbs}
    others = up.stage(
        "mismatched reference",
        "alpacafarm.methods.kto:measure_mismatched",
        MismatchedSpec(unpaired=spec.unpaired),
        makes=Kind.LOGPROBS,
        inputs={"policy": up.sft(), **judged},
        needs="one forward pass over the responses",
    )
    return trained(
        "alpacafarm.methods.kto:train",
        spec,
        up,
        inputs={
            "init": up.sft(),
            **judged,
            "reference": reference_stage(up, judged),
            "mismatched_reference": others,
        },
        needs=f"{spec.epochs} epoch(s) over the responses",
    )


def measure_mismatched(spec: MismatchedSpec, inputs: Inputs, ctx: Context) -> None:
    """What the reference says of each prompt with a response to another one."""
    from alpacafarm.training.thumbs import mismatched

    thumbs = judged_responses(inputs, ctx.tokenizer(inputs["policy"]), ctx, unpaired=spec.unpaired)
    write_logprobs(mismatched(thumbs.rows, ctx.seed), inputs["policy"], ctx)


def train(spec: Spec, inputs: Inputs, ctx: Context) -> None:
    """Logs, beside the loss: `reference_point`, z0 in nats; `accuracy`, the share of responses on their side
    of it; `logratio/desirable` and `logratio/undesirable`, means over responses of a kind (0 in a step
    without any); `margin`, `beta` times their difference.
    """
    from alpacafarm.training.offline import fit
    from alpacafarm.training.thumbs import MeasuredSteps, mismatched, thumb_steps

    tokenizer = ctx.tokenizer(inputs["init"])
    thumbs = judged_responses(inputs, tokenizer, ctx, unpaired=spec.unpaired)
    others = mismatched(thumbs.rows, ctx.seed)
    ctx.record(desirable=sum(thumbs.is_desirable), undesirable=len(thumbs) - sum(thumbs.is_desirable))
    steps = thumb_steps(
        thumbs,
        others,
        reference=read_logprobs(inputs["reference"], thumbs.rows),
        others_reference=read_logprobs(inputs["mismatched_reference"], others),
        epochs=spec.epochs,
        optim=spec.optim,
        pad_id=tokenizer.pad_token_id,
        ctx=ctx,
    )
    policy = ctx.trainable(inputs["init"], spec.optim)
    measured = MeasuredSteps(steps, policy, ctx.dist)
    fit(
        policy,
        measured,
        thumbs_loss(policy, spec),
        optim=spec.optim,
        ctx=ctx,
        label=spec.name,
        snapshot_every=spec.snapshot_every,
    )
    policy.export(ctx.out / "model")


def judged_responses(
    inputs: Inputs, tokenizer: PreTrainedTokenizerBase, ctx: Context, *, unpaired: bool
) -> TokenThumbs:
    """The responses to learn from. Ties among pairs are counted and left out."""
    from alpacafarm.training.pairs import tokenised
    from alpacafarm.training.thumbs import sides_as_thumbs, tokenised_thumbs

    if "thumbs" in inputs:
        return tokenised_thumbs(read_rows(inputs["thumbs"].path / "rows.jsonl", Thumb), tokenizer, ctx)
    judged = read_rows(inputs["pairs"].path / "pairs.jsonl", Preference)
    pairs = tokenised(judged, tokenizer, ctx, purpose="a policy")
    ctx.record(ties=sum(row.is_tie for row in pairs.rows))
    return sides_as_thumbs(pairs, unpaired=unpaired, seed=ctx.seed)


def thumbs_loss(policy: Engine, spec: Spec) -> LossFn[ThumbBatch]:
    """The loss of judged responses, summed over them."""
    from alpacafarm.ops.logprobs import sequence_sum
    from alpacafarm.ops.preference import kto

    def loss(batch: ThumbBatch) -> tuple[Tensor, dict[str, Tensor]]:
        logprob_BT = policy(batch.sequences).logprob_BT
        ratio_B = sequence_sum(logprob_BT, batch.sequences.mask_BT) - batch.reference_B
        loss_B = kto(
            ratio_B,
            batch.is_desirable_B,
            batch.reference_point,
            beta=spec.beta,
            desirable_weight=spec.desirable_weight,
            undesirable_weight=spec.undesirable_weight,
        )
        is_above_B = ratio_B > batch.reference_point
        shared_B = (ratio_B * batch.share_B).detach()
        good = shared_B[batch.is_desirable_B].sum()
        bad = shared_B[~batch.is_desirable_B].sum()
        return loss_B.sum(), {
            "reference_point": batch.reference_point * batch.rows,
            "accuracy": (is_above_B == batch.is_desirable_B).sum(),
            "logratio/desirable": good,
            "logratio/undesirable": bad,
            "margin": spec.beta * (good - bad),
        }

    return loss
