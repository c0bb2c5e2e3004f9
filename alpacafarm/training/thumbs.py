"""Single responses with a thumb up or down, as tokens and as optimiser steps (Ethayarajh et al. 2024).

Shapes: B responses.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alpacafarm.errors import SpecError
from alpacafarm.ops.logprobs import sequence_sum
from alpacafarm.ports import Context, Dist, Engine
from alpacafarm.spec.method import OptimSpec
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.text.collate import OverSequences, SequenceBatch, Tokens, collate
from alpacafarm.text.tokenise import encode_rows, fit
from alpacafarm.training.batches import Steps, step_rows
from alpacafarm.training.pairs import TokenPairs
from alpacafarm.types import Thumb

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenThumbs:
    """Place i of each list belongs to one response."""

    rows: list[Tokens]
    is_desirable: list[bool]

    def __len__(self) -> int:
        return len(self.rows)


def tokenised_thumbs(
    thumbs: Sequence[Thumb], tokenizer: PreTrainedTokenizerBase, ctx: Context
) -> TokenThumbs:
    """Responses whose prompt fits. Records what was dropped and cut; SpecError where none is left."""
    fitted = fit(
        encode_rows(tokenizer, ctx.model.prompt, thumbs),
        max_prompt_tokens=ctx.model.max_prompt_tokens,
        max_response_tokens=ctx.model.max_response_tokens,
    )
    ctx.record(dropped_prompts=fitted.too_long_prompts, truncated_responses=fitted.truncated_responses)
    if not fitted.kept:
        raise SpecError(
            f"none of {len(thumbs)} answers with thumbs is left: every prompt has more than "
            f"model.max_prompt_tokens={ctx.model.max_prompt_tokens}; raise it, or give shorter ones"
        )
    return TokenThumbs(fitted.rows, [thumbs[i].desirable for i in fitted.kept])


def sides_as_thumbs(pairs: TokenPairs, *, unpaired: bool, seed: int) -> TokenThumbs:
    """The chosen side of a pair is desirable, the rejected one is not; ties are left out.

    `unpaired` keeps one side of each pair, drawn from the seed and the pair's id.
    """
    rows: list[Tokens] = []
    is_desirable: list[bool] = []
    for first, second, row in zip(pairs.first, pairs.second, pairs.rows, strict=True):
        if row.is_tie:
            continue
        sides = [(first, not row.is_second_better), (second, row.is_second_better)]
        if unpaired:
            sides = [random.Random(stable_seed(seed, "side", row.id)).choice(sides)]
        rows += [tokens for tokens, _ in sides]
        is_desirable += [good for _, good in sides]
    return TokenThumbs(rows, is_desirable)


def mismatched(rows: Sequence[Tokens], seed: int) -> list[Tokens]:
    """Each row's prompt with a response to another prompt, drawn from the seed whatever the rows' order.

    SpecError where there are not two prompts.
    """
    responses: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for row in sorted(rows, key=lambda row: (row.prompt, row.response)):
        responses.setdefault(row.prompt, []).append(row.response)
    ring = list(responses)
    random.Random(stable_seed(seed, "mismatched prompts")).shuffle(ring)
    if len(ring) < 2:
        raise SpecError(
            f"the judged responses that are left (ties are not) answer {len(ring)} prompt(s), and method=kto "
            "measures its reference point on responses to other prompts; give responses to two or more"
        )
    following = dict(zip(ring, [*ring[1:], ring[0]], strict=True))
    found = []
    for row in rows:
        others = responses[following[row.prompt]]
        draw = stable_seed(seed, "mismatched response", row.prompt, row.response)
        found.append(Tokens(row.prompt, others[draw % len(others)]))
    return found


@dataclass(frozen=True)
class ThumbBatch(OverSequences):
    """Single responses. Weight: responses.

    `MeasuredSteps` fills in what belongs to the whole optimiser step.
    """

    mismatched: SequenceBatch  # the same prompts, with responses to others
    is_desirable_B: Tensor
    reference_B: Tensor  # log p(response) under the reference, in nats
    mismatched_reference_B: Tensor
    reference_point: Tensor  # z0: nats, a scalar
    share_B: Tensor  # responses of the step for each of this one's kind: weighs means over one kind

    @property
    def real_tokens(self) -> int:
        return self.sequences.real_tokens + self.mismatched.real_tokens

    @property
    def computed_tokens(self) -> int:
        return self.sequences.computed_tokens + self.mismatched.computed_tokens


def thumb_steps(
    thumbs: TokenThumbs,
    others: Sequence[Tokens],
    *,
    reference: Sequence[float],
    others_reference: Sequence[float],
    epochs: int,
    optim: OptimSpec,
    pad_id: int,
    ctx: Context,
) -> Steps[ThumbBatch]:
    """Optimiser steps over all responses. `others` are the mismatched rows; the rest is listed by place."""

    def collated(places: Sequence[int]) -> ThumbBatch:
        return ThumbBatch(
            weight=float(len(places)),
            sequences=collate([thumbs.rows[i] for i in places], pad_id),
            mismatched=collate([others[i] for i in places], pad_id),
            is_desirable_B=torch.tensor([thumbs.is_desirable[i] for i in places]),
            reference_B=torch.tensor([reference[i] for i in places], dtype=torch.float32),
            mismatched_reference_B=torch.tensor([others_reference[i] for i in places], dtype=torch.float32),
            reference_point=torch.tensor(0.0),
            share_B=torch.ones(len(places)),
        )

    return Steps(
        rows_of=step_rows(len(thumbs), batch_size=optim.batch_size, epochs=epochs, seed=ctx.seed),
        lengths=[max(row.length, other.length) for row, other in zip(thumbs.rows, others, strict=True)],
        collate=collated,
        micro_batch=ctx.micro_batch,
        rank=ctx.dist.rank,
        world=ctx.dist.world,
    )


@dataclass(frozen=True)
class MeasuredSteps:
    """Steps with the reference point of each, measured when asked for on the policy as it is then.

    z0 = max(0, mean log-ratio of the mismatched rows of the whole step): neither micro-batches nor ranks
    change it. (The paper takes the mean over a micro-batch, section 4.1.)
    """

    steps: Steps[ThumbBatch]
    policy: Engine
    dist: Dist

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, step: int) -> list[ThumbBatch]:
        batches = self.steps[step]
        ratios = 0.0
        for i in range(max(self.dist.gather(len(batches)))):
            # Where weights are sharded (ZeRO-3) ranks call equally often: the last batch again, for nothing.
            batch = batches[min(i, len(batches) - 1)].to(self.policy.device)
            logprob_BT = self.policy(batch.mismatched).logprob_BT
            ratio_B = sequence_sum(logprob_BT, batch.mismatched.mask_BT) - batch.mismatched_reference_B
            if i < len(batches) and batch.weight:
                ratios += float(ratio_B.double().sum())
        desirable = sum(float(b.is_desirable_B.sum()) for b in batches if b.weight)
        total, count, good = self.dist.total([ratios, sum(b.weight for b in batches), desirable])
        point = torch.tensor(max(0.0, total / count), dtype=torch.float32)
        shares = torch.tensor([count / max(1.0, count - good), count / max(1.0, good)])
        return [
            replace(batch, reference_point=point, share_B=shares[batch.is_desirable_B.long()])
            for batch in batches
        ]
