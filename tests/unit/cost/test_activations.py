"""The bytes that autograd keeps of a token, against the tensors that it keeps of models that are built."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from alpacafarm.cost.memory import Layout, activations
from alpacafarm.cost.shape import shape_of_folder
from alpacafarm.spec.model import LoraSpec

ROWS, LENGTH = 2, 48
LORA = LoraSpec(rank=2, alpha=4, dropout=0.0, targets="all-linear")
LLAMA = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4, "vocab_size": 64}
SIZES: dict[str, dict[str, Any]] = {
    "llama": LLAMA | {"num_key_value_heads": 2},
    "mistral": LLAMA | {"num_key_value_heads": 2, "sliding_window": None},
    "qwen2": LLAMA | {"num_key_value_heads": 4},
    "qwen3": LLAMA | {"head_dim": 16, "num_key_value_heads": 4},
    "gpt2": {
        "n_embd": 64,
        "n_inner": 192,
        "n_head": 4,
        "vocab_size": 64,
        "bos_token_id": 1,
        "eos_token_id": 1,
    },
    "opt": {
        "hidden_size": 64,
        "ffn_dim": 192,
        "num_attention_heads": 4,
        "vocab_size": 64,
        "word_embed_proj_dim": 64,
    },
    "gpt_neox": LLAMA,
}


def layout(dtype: str, *, lora: LoraSpec | None = None, checkpointing: bool = False) -> Layout:
    return Layout(
        engine="plain",
        stage=0,
        world=1,
        dtype=dtype,
        on_gpu=False,
        checkpointing=checkpointing,
        lora=lora,
        optimiser_offloaded=False,
        weights_offloaded=False,
    )


def kept(family: str, layers: int, dtype: str, *, lora: LoraSpec | None) -> float:
    """Bytes of a token: the storages of all saved tensors, but for weights."""
    config = AutoConfig.for_model(family, **{**SIZES[family], **depth(family, layers)})
    for name in ("resid_pdrop", "embd_pdrop", "attn_pdrop", "dropout", "hidden_dropout"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    model = AutoModelForCausalLM.from_config(config).to(getattr(torch, dtype)).train()
    if lora is not None:
        from peft import LoraConfig, inject_adapter_in_model

        model.requires_grad_(False)
        told = LoraConfig(
            r=lora.rank, lora_alpha=lora.alpha, target_modules=lora.targets, task_type="CAUSAL_LM"
        )
        inject_adapter_in_model(told, model)
    known = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
    alive: list[torch.Tensor] = []

    def keep(x: torch.Tensor) -> torch.Tensor:
        alive.append(x)
        return x

    ids = torch.randint(3, 50, (ROWS, LENGTH))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    storages = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in alive}
    return sum(size for place, size in storages.items() if place not in known) / (ROWS * LENGTH)


def depth(family: str, layers: int) -> dict[str, int]:
    return {"n_layer" if family == "gpt2" else "num_hidden_layers": layers}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("family", "lora"),
    [*((family, None) for family in SIZES), ("llama", LORA)],
    ids=lambda x: "lora" if isinstance(x, LoraSpec) else str(x),
)
def test_a_block_keeps_what_is_counted(family, dtype, lora, tmp_path: Path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": family, **SIZES[family], **depth(family, 1)})
    )
    shape = shape_of_folder(tmp_path)
    assert shape is not None
    of_a_block = kept(family, 3, dtype, lora=lora) - kept(family, 2, dtype, lora=lora)
    lay = layout(dtype, lora=lora)
    counted = activations(shape_with(shape, 2), lay) - activations(shape_with(shape, 1), lay)
    # Left: scales of single vectors, of adapters some of rank 2
    assert counted == pytest.approx(of_a_block, rel=0.02 if lora is None else 0.03)


def shape_with(shape, layers):
    from dataclasses import replace

    return replace(shape, layers=layers)


def test_checkpointing_keeps_the_inputs_of_blocks_and_one_block(tmp_path: Path):
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "llama", **LLAMA, "num_hidden_layers": 5})
    )
    shape = shape_of_folder(tmp_path)
    assert shape is not None
    one = shape_with(shape, 1)
    without, alone = layout("bfloat16"), layout("bfloat16", checkpointing=True)
    assert activations(shape, alone) == activations(one, without) + 5 * 2 * 64
