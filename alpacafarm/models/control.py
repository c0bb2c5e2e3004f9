"""What control tokens ask of a policy: rows in its embeddings, and that it never says them."""

# Shapes: H hidden size, N new tokens.

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from alpacafarm.models.load import set_special_ids
from alpacafarm.stats.seeds import stable_seed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def give_rows(policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, known: int, seed: int) -> None:
    """Embeddings for every token of `tokenizer` from id `known` on; no control token is ever said.

    Each row is the mean of the known tokens' rows plus noise of their standard deviation, both per dimension,
    as alpaca_farm's `stable_resize_token_embeddings` has it for Quark: equal rows would make the new tokens
    the same word. The noise is drawn from `seed`, alike on every rank. Spare rows are used before rows are
    added.
    """
    size = len(tokenizer)
    set_special_ids(policy, tokenizer)
    if size == known:
        return
    if size > policy.get_input_embeddings().weight.size(0):
        with torch.random.fork_rng(devices=[]):
            policy.resize_token_embeddings(size, mean_resizing=False)
    generator = torch.Generator().manual_seed(stable_seed(seed, "control tokens"))
    embeddings = (policy.get_input_embeddings(), policy.get_output_embeddings())
    for weight_VH in {id(layer.weight): layer.weight.data for layer in embeddings}.values():  # tied: one
        known_VH = weight_VH[:known].float()
        noise_NH = torch.randn(size - known, weight_VH.size(1), generator=generator)
        weight_VH[known:size] = known_VH.mean(0) + noise_NH * known_VH.std(0)


def unspoken_ids(policy: PreTrainedModel) -> list[int]:
    """Ids that the policy never says, which are its control tokens.

    They stand where transformers' own `generate` looks for them, and are exported with the weights.
    """
    return list(policy.generation_config.suppress_tokens or ())
