"""Shapes read from config.json, against models that transformers builds from the same config."""

import json
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch
from hydra import initialize_config_dir
from omegaconf import OmegaConf
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

from alpacafarm.compose import conf_dir
from alpacafarm.cost.shape import shape_of_config, shape_of_folder, shape_of_model
from alpacafarm.spec.model import ModelSpec

GQA = {"num_key_value_heads": 2}
SIZES = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 101}
LLAMA_LIKE = SIZES | {"intermediate_size": 72}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("llama", LLAMA_LIKE),
    ("llama", LLAMA_LIKE | GQA | {"tie_word_embeddings": True, "head_dim": 20}),
    ("llama", LLAMA_LIKE | {"attention_bias": True, "mlp_bias": True}),
    ("mistral", LLAMA_LIKE | GQA),
    ("qwen2", LLAMA_LIKE | GQA | {"tie_word_embeddings": True}),
    ("qwen3", LLAMA_LIKE | GQA | {"head_dim": 16}),
    ("gpt2", {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 101, "n_positions": 37}),
    ("gpt2", {"n_embd": 48, "n_layer": 3, "n_head": 4, "vocab_size": 101, "n_inner": 72}),
    ("opt", SIZES | {"ffn_dim": 72, "word_embed_proj_dim": 48, "max_position_embeddings": 37}),
    ("gpt_neox", LLAMA_LIKE),
]


@pytest.mark.parametrize(("family", "sizes"), CONFIGS, ids=lambda x: x if isinstance(x, str) else "")
def test_parameters_are_those_of_the_model_that_transformers_builds(family, sizes, tmp_path: Path):
    config = AutoConfig.for_model(family, **sizes)
    config.save_pretrained(str(tmp_path))
    shape = shape_of_folder(tmp_path)
    assert shape is not None
    with torch.device("meta"):
        policy = AutoModelForCausalLM.from_config(config)
        reward = AutoModelForSequenceClassification.from_config(
            AutoConfig.for_model(family, **sizes, num_labels=1)
        )
    assert shape.parameters == sum(p.numel() for p in policy.parameters())
    biases = sum(
        p.numel() for name, p in reward.named_parameters() if name.startswith("score") and p.dim() == 1
    )
    assert shape.scorer_parameters == sum(p.numel() for p in reward.parameters()) - biases


def test_what_was_written_by_hand_counts_like_what_transformers_writes():
    """Files of the hub leave out what is the architecture's default."""
    for family, sizes in CONFIGS:
        whole = AutoConfig.for_model(family, **sizes).to_dict()
        short, long = shape_of_config({"model_type": family, **sizes}), shape_of_config(whole)
        assert short is not None
        assert long is not None
        assert short.layer == long.layer
        assert short.head == long.head


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "t5", "hidden_size": 8},
        {"model_type": "llama"},
        {"model_type": "llama", **LLAMA_LIKE, "num_attention_heads": 0},
        {"model_type": "llama", **LLAMA_LIKE, "hidden_size": -64},
        {"model_type": "opt", **SIZES, "ffn_dim": 72, "word_embed_proj_dim": 12},
    ],
)
def test_a_shape_that_is_not_known_is_none(config):
    assert shape_of_config(config) is None


def test_an_artifact_and_adapters_have_the_shape_of_their_model(tmp_path: Path):
    base, artifact, adapter = (tmp_path / name for name in ("base", "artifact", "adapter"))
    config = {"model_type": "llama", **LLAMA_LIKE}
    for folder in (base, artifact / "model", adapter):
        folder.mkdir(parents=True)
    for folder in (base, artifact / "model"):
        (folder / "config.json").write_text(json.dumps(config))
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    assert shape_of_folder(artifact) == shape_of_folder(adapter) == shape_of_config(config)
    assert shape_of_folder(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("model", "parameters"),
    # As published with the weights (the hub's count of their elements)
    [("llama-7b", 6_738_415_616), ("llama-3.2-1b", 1_235_814_400), ("qwen-0.5b", 494_032_768)],
)
def test_models_of_the_hub_have_their_published_size_without_looking_them_up(model, parameters):
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed = hydra.compose("config", [f"model={model}"]).model
    shape = shape_of_model(ModelSpec.model_validate(OmegaConf.to_container(composed, resolve=True)))
    assert shape is not None
    assert shape.parameters == parameters
