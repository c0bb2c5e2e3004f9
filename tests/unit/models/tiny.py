"""Models of a few thousand weights, and a tokenizer to go with them."""

from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from alpacafarm.text.collate import Tokens

VOCABULARY = 40
PAD, EOS = 0, 1

SHAPE: dict[str, dict[str, Any]] = {
    "llama": {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2},
    "qwen2": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    },
    "gemma2": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "final_logit_softcapping": 1.5,
    },
    "cohere": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "logit_scale": 0.25,
    },
    "granite": {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "logits_scaling": 4.0,
    },
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64},
}


def config(architecture: str = "llama", **changes: Any) -> Any:
    """Wide initial weights: with the usual 0.02 every distribution is uniform and every test passes."""
    ids = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "eos_token_id": EOS, "bos_token_id": EOS}
    settings = {**ids, **SHAPE[architecture], "initializer_range": 0.3, **changes}
    return CONFIG_MAPPING[architecture](**settings)


def policy(architecture: str = "llama", *, seed: int = 0, **changes: Any) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(config(architecture, **changes)).eval()


def tokenizer(*, size: int = VOCABULARY, pad: str | None = "<pad>", eos: str | None = "</s>") -> Any:
    """Words w2, w3, ... after the two special tokens."""
    words = {"<pad>": PAD, "</s>": EOS} | {f"w{i}": i for i in range(2, size)}
    wordlevel = Tokenizer(models.WordLevel(words, unk_token=None))
    wordlevel.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=wordlevel, eos_token=eos, pad_token=pad)


def rows(n: int, seed: int = 0, *, longest: int = 9) -> list[Tokens]:
    """Random prompts and responses of 1 to `longest` tokens, none of them special."""
    generator = torch.Generator().manual_seed(seed)

    def ids() -> tuple[int, ...]:
        length = int(torch.randint(1, longest + 1, (1,), generator=generator))
        return tuple(torch.randint(2, VOCABULARY, (length,), generator=generator).tolist())

    return [Tokens(prompt=ids(), response=ids()) for _ in range(n)]
