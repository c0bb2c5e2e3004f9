"""Sampling from a Hugging Face causal language model: exact tokens in, exact tokens out.

A decode loop of our own rather than `generate`, which is written for one long answer. Here there are hundreds
of short rows: prompts of like length share a batch, the key-value cache is written in place, rows that have
ended leave the batch, and each row has its own random stream (`draw`).
"""

# Shapes: B rows, L positions of the prompts, T new tokens, C = L + T, A rows still in the batch, V tokens,
# N tokens that are never drawn.

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from alpacafarm.ports import Sampled
from alpacafarm.rollout.draw import draw, uniforms
from alpacafarm.rollout.order import by_length
from alpacafarm.spec.model import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COMPACT_BELOW = 0.75  # share of live rows under which the dead are removed; a removal copies the cache


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    seeds: Sequence[int],
    pad_id: int,
    eos_ids: Collection[int],
    unspoken_ids: Collection[int] = (),
    batch_size: int,
    on_batch: Callable[[int], None] | None = None,
) -> Sampled:
    """One response per prompt, in the prompts' order. The model must be in eval mode.

    What a row samples depends on its prompt, its seed and the weights only. The end token is kept; a row that
    reaches `max_new_tokens` without one has not ended. The padding token is never drawn, because a response
    that holds it could not be told from padding; a policy never trained on it gives it a mass of about zero,
    so the distribution is treated as whole elsewhere. (Where padding and end token are the same, it is drawn:
    the row ends with it.) Nor are `unspoken_ids`, the control tokens. The model's `generation_config` plays
    no part. `on_batch` is told the number of rows each time a batch is done.
    """
    if len(seeds) != len(prompts):
        raise ValueError(f"{len(seeds)} seeds for {len(prompts)} prompts; one seed for each is required")
    assert not model.training, "sampling needs model.eval()"
    assert all(prompts), "a prompt needs at least one token"
    _check_positions(model, prompts, sampling)
    responses: list[tuple[int, ...]] = [()] * len(prompts)
    ended = [False] * len(prompts)
    computed = 0
    never = sorted({pad_id, *unspoken_ids} - set(eos_ids))
    for indices in by_length([len(prompt) for prompt in prompts], batch_size):
        found = _sample_batch(
            model,
            [prompts[i] for i in indices],
            sampling,
            uniforms([seeds[i] for i in indices], sampling.max_new_tokens),
            pad_id,
            eos_ids,
            never,
        )
        for i, response, has_ended in zip(indices, found.responses, found.ended, strict=True):
            responses[i], ended[i] = response, has_ended
        computed += found.computed_tokens
        if on_batch:
            on_batch(len(indices))
    return Sampled(responses, ended, computed)


def _sample_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    u_BT: Tensor,
    pad_id: int,
    eos_ids: Collection[int],
    never: Sequence[int],
) -> Sampled:
    from alpacafarm.rollout.cache import new_cache

    rows, steps = u_BT.shape
    width = max(map(len, prompts))
    ids_BL, mask_BC = _left_padded(prompts, pad_id, capacity=width + steps)
    ids, mask = ids_BL.to(model.device), mask_BC.to(model.device)
    position = (mask[:, :width].cumsum(1) - 1).clamp_(min=0)
    u_TA = u_BT.T.contiguous().to(model.device)
    cache = new_cache(model.config, width + steps)
    never_N = torch.tensor(never, dtype=torch.long, device=model.device)
    eos = np.array(sorted(eos_ids), dtype=np.int64)

    token_BT = np.full((rows, steps), pad_id, dtype=np.int64)
    count_B = np.full(rows, steps)
    ended_B = np.zeros(rows, dtype=bool)
    computed = 0
    alive_A = np.arange(rows)  # the row of `token_BT` that stands in each place of the batch
    for t in range(steps):
        logits_AV = model(
            input_ids=ids,
            attention_mask=mask[:, : width + t],
            position_ids=position,
            cache=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        computed += ids.numel()
        logits_AV[:, never_N] = -torch.inf
        next_A = draw(logits_AV, u_TA[t], sampling)
        token_A = next_A.cpu().numpy()  # the one place where a step waits for the device
        if token_A.max() >= logits_AV.size(1):
            raise ValueError(
                f"the policy's logits are not numbers at response token {t}: its weights have diverged; "
                "lower method.optim.lr or go back to an earlier checkpoint"
            )
        token_BT[alive_A, t] = token_A
        ended_A = np.isin(token_A, eos) & ~ended_B[alive_A]
        ended_B[alive_A[ended_A]] = True
        count_B[alive_A[ended_A]] = t + 1
        live_A = ~ended_B[alive_A]
        if not live_A.any():
            break
        ids = next_A[:, None]
        position = position[:, -1:] + 1
        if live_A.mean() < COMPACT_BELOW:
            keep = torch.from_numpy(np.flatnonzero(live_A)).to(model.device)
            alive_A = alive_A[live_A]
            ids, position, mask, u_TA = ids[keep], position[keep], mask[keep], u_TA[:, keep]
            cache.batch_select_indices(keep)
    return Sampled(
        [tuple(token_BT[b, : count_B[b]].tolist()) for b in range(rows)],
        ended_B.tolist(),
        computed,
    )


def _left_padded(prompts: Sequence[Sequence[int]], pad_id: int, *, capacity: int) -> tuple[Tensor, Tensor]:
    """ids_BL, and a mask over `capacity` positions that is already 1 where responses will stand."""
    width = max(map(len, prompts))
    ids_BL = torch.full((len(prompts), width), pad_id, dtype=torch.long)
    mask_BC = torch.ones((len(prompts), capacity), dtype=torch.long)
    for b, prompt in enumerate(prompts):
        ids_BL[b, width - len(prompt) :] = torch.tensor(prompt)
        mask_BC[b, : width - len(prompt)] = 0
    return ids_BL, mask_BC


def _check_positions(model: PreTrainedModel, prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
    limit = getattr(model.config, "max_position_embeddings", None)  # some architectures have no limit
    longest = max(map(len, prompts), default=0)
    if limit is not None and longest + sampling.max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and max_new_tokens={sampling.max_new_tokens} together pass "
            f"the model's {limit} positions; set max_new_tokens or model.max_prompt_tokens lower"
        )
