"""What is trained: a policy, alone, beside its reference or with a value network, or a reward model; all on
`SequenceBatch`.

Only positions that predict response tokens reach the language-model head, and those in chunks: at 32k tokens
of vocabulary the logits of a batch are larger than everything else together.

The modules return named tuples, not dataclasses: ZeRO-3's hooks find tensors in tuples and in nothing else of
ours.
"""

# Shapes: B rows, L positions of the longest sequence, T positions of the longest response, N response tokens
# of the batch (rows and positions flattened), H hidden size, V vocabulary.

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alpacafarm.models.control import unspoken_ids
from alpacafarm.ops.logprobs import token_stats, token_stats_beside
from alpacafarm.text.collate import SequenceBatch

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CHUNK_ELEMENTS = 2**25  # logits of one chunk, 128 MiB in float32


class ResponseStats(NamedTuple):
    """Zero on padding. Entropy in nats, None unless asked for."""

    logprob_BT: Tensor
    entropy_BT: Tensor | None


class ActorCriticStats(NamedTuple):
    """As `ResponseStats`; `value_BT` is V before token t is emitted, zero on padding."""

    logprob_BT: Tensor
    entropy_BT: Tensor | None
    value_BT: Tensor


class AnchoredStats(NamedTuple):
    """Zero on padding, all in nats. KL of the policy to its anchor, exact: over the whole vocabulary."""

    logprob_BT: Tensor
    entropy_BT: Tensor
    kl_BT: Tensor


class LanguageModel(nn.Module):
    """A causal language model that reports on response tokens."""

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.policy = policy

    def forward(
        self, batch: SequenceBatch, *, temperature: float = 1.0, with_entropy: bool = False
    ) -> ResponseStats:
        hidden_NH = _predicting(_hidden(self.policy, batch), batch)
        return _response_stats(self.policy, hidden_NH, batch, temperature, with_entropy)


class AnchoredModel(nn.Module):
    """A policy beside the frozen reference that it should stay close to.

    Both are one module, so that the logits of both can be computed together, a chunk at a time, and again in
    the backward pass: under ZeRO-3 the module holds both heads whole all the while.
    """

    def __init__(self, policy: PreTrainedModel, reference: PreTrainedModel) -> None:
        super().__init__()
        self.policy = policy
        self.reference = reference.requires_grad_(False)

    def forward(
        self, batch: SequenceBatch, plain: SequenceBatch, *, temperature: float = 1.0
    ) -> AnchoredStats:
        """`plain` has the same responses, to the prompts that the reference reads: without control tokens."""
        assert batch.mask_BT.shape == plain.mask_BT.shape
        with torch.no_grad():
            reference_NH = _predicting(_hidden(self.reference, plain), plain)
        stats = token_stats_beside(
            _predicting(_hidden(self.policy, batch), batch),
            spoken_logits_function(self.policy),
            reference_NH,
            spoken_logits_function(self.reference),
            batch.response_BT[batch.mask_BT],
            temperature=temperature,
            chunk=_chunk(self.policy),
        )
        assert stats.entropy_N is not None
        assert stats.kl_N is not None
        return AnchoredStats(
            *(_scatter(x_N, batch.mask_BT) for x_N in (stats.logprob_N, stats.entropy_N, stats.kl_N))
        )


class RewardModel(nn.Module):
    """A sequence classifier with one label, read at the last real token."""

    def __init__(self, reward: PreTrainedModel) -> None:
        super().__init__()
        self.reward = reward

    def forward(self, batch: SequenceBatch) -> Tensor:
        """score_B, in float32 at least."""
        last_B = batch.attention_BL.sum(1) - 1
        hidden_BLH = _hidden(self.reward, batch)
        row_B = torch.arange(last_B.size(0), device=last_B.device)
        return _score(self.reward, hidden_BLH[row_B, last_B])


class ActorCritic(nn.Module):
    """A policy and a separate value network under one optimiser and one clipping norm.

    The value network is a sequence classifier, usually with a reward model's backbone; its head starts at
    zero, so that the first advantages are plain returns. Its learning rate is the policy's times
    `value_lr_scale`.
    """

    def __init__(
        self, policy: PreTrainedModel, value: PreTrainedModel, *, value_lr_scale: float = 1.0
    ) -> None:
        super().__init__()
        self.policy = policy
        self.value = value
        self.lr_scales = {"value.": value_lr_scale}
        nn.init.zeros_(value.score.weight)

    def forward(
        self, batch: SequenceBatch, *, temperature: float = 1.0, with_entropy: bool = False
    ) -> ActorCriticStats:
        hidden_NH = _predicting(_hidden(self.policy, batch), batch)
        logprob_BT, entropy_BT = _response_stats(self.policy, hidden_NH, batch, temperature, with_entropy)
        value_N = _score(self.value, _predicting(_hidden(self.value, batch), batch))
        return ActorCriticStats(logprob_BT, entropy_BT, _scatter(value_N, batch.mask_BT))


def logits_function(policy: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """Hidden states to logits, as the model's own forward computes them.

    The weight is read here, once, and not inside the function. Under ZeRO-3 the enclosing module's forward
    and backward then hold it whole; called chunk by chunk, the head would gather it for each chunk, and ranks
    with different numbers of chunks would wait for each other.
    """
    head = policy.get_output_embeddings()
    assert isinstance(head, nn.Linear), f"{type(policy).__name__} has no linear output embedding"
    weight_VH, bias_V = head.weight, head.bias
    config = policy.config.get_text_config()
    cap: float | None = getattr(config, "final_logit_softcapping", None)  # Gemma 2
    scale: float = getattr(config, "logit_scale", None) or 1.0  # Cohere
    scale /= getattr(config, "logits_scaling", None) or 1.0  # Granite

    def logits(hidden_NH: Tensor) -> Tensor:
        logits_NV = F.linear(hidden_NH, weight_VH, bias_V)
        if scale != 1.0:
            logits_NV = logits_NV * scale
        return logits_NV if cap is None else torch.tanh(logits_NV / cap) * cap

    return logits


def spoken_logits_function(policy: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """`logits_function` with -inf for the tokens that the policy never says, as it is sampled from."""
    logits, unspoken = logits_function(policy), unspoken_ids(policy)
    if not unspoken:
        return logits

    def spoken(hidden_NH: Tensor) -> Tensor:
        index = torch.tensor(unspoken, device=hidden_NH.device)
        return logits(hidden_NH).index_fill(-1, index, -torch.inf)

    return spoken


def _hidden(model: PreTrainedModel, batch: SequenceBatch) -> Tensor:
    """hidden_BLH. Rows are right-padded, so every architecture's default positions are right."""
    hidden_BLH: Tensor = model.base_model(
        input_ids=batch.input_ids_BL, attention_mask=batch.attention_BL, use_cache=False
    ).last_hidden_state
    return hidden_BLH


def _predicting(hidden_BLH: Tensor, batch: SequenceBatch) -> Tensor:
    """hidden_NH at the positions that predict response tokens: token t is predicted at start + t - 1."""
    row_N, t_N = batch.mask_BT.nonzero(as_tuple=True)
    return hidden_BLH[row_N, batch.start_B[row_N] + t_N - 1]


def _response_stats(
    policy: PreTrainedModel, hidden_NH: Tensor, batch: SequenceBatch, temperature: float, with_entropy: bool
) -> ResponseStats:
    stats = token_stats(
        hidden_NH,
        spoken_logits_function(policy),
        batch.response_BT[batch.mask_BT],
        temperature=temperature,
        chunk=_chunk(policy),
        with_entropy=with_entropy,
    )
    return ResponseStats(
        logprob_BT=_scatter(stats.logprob_N, batch.mask_BT),
        entropy_BT=None if stats.entropy_N is None else _scatter(stats.entropy_N, batch.mask_BT),
    )


def _chunk(policy: PreTrainedModel) -> int:
    """Tokens whose logits are held at once."""
    return max(1, CHUNK_ELEMENTS // int(policy.config.get_text_config().vocab_size))


def _score(model: PreTrainedModel, hidden_NH: Tensor) -> Tensor:
    """The one label in float32: in bfloat16 scores near 3 would be multiples of 1/64."""
    weight_1H = model.score.weight
    dtype = torch.promote_types(hidden_NH.dtype, torch.float32)
    return F.linear(hidden_NH.to(dtype), weight_1H.to(dtype)).squeeze(-1)


def _scatter(x_N: Tensor, mask_BT: Tensor) -> Tensor:
    return torch.zeros(mask_BT.shape, dtype=x_N.dtype, device=x_N.device).masked_scatter(mask_BT, x_N)
