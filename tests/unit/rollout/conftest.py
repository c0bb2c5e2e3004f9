"""Random two-layer models whose distributions are far from uniform."""

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

VOCAB = 40


def tiny(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    llama_like = {
        "vocab_size": VOCAB,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
    }
    if family == "llama":
        model: PreTrainedModel = LlamaForCausalLM(LlamaConfig(**llama_like))
    elif family == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**llama_like))
    elif family == "mistral":  # a window shorter than the rows: the cache forgets
        model = MistralForCausalLM(MistralConfig(**llama_like, sliding_window=6))
    elif family == "gpt2":
        shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB, **shape, initializer_range=0.3))
    else:
        raise ValueError(family)
    return model.eval()


@pytest.fixture(scope="session", params=["llama", "gpt2", "qwen2", "mistral"])
def model(request) -> PreTrainedModel:
    return tiny(request.param)


@pytest.fixture(scope="session")
def llama() -> PreTrainedModel:
    return tiny("llama")
