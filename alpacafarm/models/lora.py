"""Low-rank adapters in a model that stays what it was (Hu et al. 2021, arXiv:2106.09685), through `peft`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alpacafarm.errors import SpecError
from alpacafarm.spec.model import LoraSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER = "default"


def apply_lora(module: nn.Module, spec: LoraSpec, *, seed: int) -> None:
    """Freezes the module's models and puts adapters into them, which start as the identity.

    Score heads stay trainable whole: they start near zero or at zero, so there is nothing to adapt.
    """
    from peft import LoraConfig, inject_adapter_in_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for model in module.children():
            head = getattr(model, "score", None)
            config = LoraConfig(
                task_type="CAUSAL_LM" if head is None else "SEQ_CLS",
                r=spec.rank,
                lora_alpha=spec.alpha,
                lora_dropout=spec.dropout,
                target_modules=spec.targets,
            )
            try:
                inject_adapter_in_model(config, model, adapter_name=ADAPTER)
            except ValueError as error:  # no such module
                raise SpecError(_unknown_targets(model, spec)) from error
            _refuse_embeddings(model, spec)
            if head is not None:
                head.requires_grad_(True)


def has_lora(model: nn.Module) -> bool:
    return any(_is_adapted(part) for part in model.modules())


def merged_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` of an adapted model as that of a plain one: W + scaling * B A, summed in float32."""
    merged = {_plain_name(name): tensor for name, tensor in state.items() if ".lora_" not in name}
    for name, layer in model.named_modules():
        if _is_adapted(layer):
            a, b = state[f"{name}.lora_A.{ADAPTER}.weight"], state[f"{name}.lora_B.{ADAPTER}.weight"]
            delta = layer.scaling[ADAPTER] * (b.float() @ a.float())
            if layer.fan_in_fan_out:  # GPT-2 keeps its linear weights transposed
                delta = delta.T
            weight = merged[f"{name}.weight"]
            merged[f"{name}.weight"] = (weight.float() + delta).to(weight.dtype)
    return merged


def adapter_state(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What `peft` stores: the adapters and the score head, under its names."""
    return {
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": tensor
        for name, tensor in state.items()
        if ".lora_" in name or name.startswith("score.")
    }


def adapter_config(model: PreTrainedModel) -> Any:
    """The `LoraConfig` to store beside `adapter_state`."""
    from dataclasses import replace

    has_score = getattr(model, "score", None) is not None
    name = model.config.name_or_path
    return replace(
        model.peft_config[ADAPTER],
        base_model_name_or_path=str(Path(name).resolve()) if Path(name).exists() else name,
        revision=getattr(model.config, "_commit_hash", None),  # known for what came from the hub
        modules_to_save=["score"] if has_score else None,
        inference_mode=True,
    )


def _is_adapted(layer: nn.Module) -> bool:
    from peft.tuners.lora import LoraLayer

    return isinstance(layer, LoraLayer)


def _plain_name(name: str) -> str:
    return name.replace(".base_layer.", ".")


def _unknown_targets(model: nn.Module, spec: LoraSpec) -> str:
    linear = {
        name.rpartition(".")[2] for name, layer in model.named_modules() if isinstance(layer, nn.Linear)
    }
    return (
        f"model.lora.targets={spec.targets} fits no layer of {type(model).__name__}; its linear layers are "
        f"{', '.join(sorted(linear))}; name some of them, or set model.lora.targets=all-linear"
    )


def _refuse_embeddings(model: Any, spec: LoraSpec) -> None:
    embeddings = (model.get_input_embeddings(), model.get_output_embeddings())
    if any(layer is not None and _is_adapted(layer) for layer in embeddings):
        raise SpecError(
            f"model.lora.targets={spec.targets} names an embedding; adapters go into linear layers between "
            "the embeddings; list attention and feed-forward layers only, "
            "or set model.lora.targets=all-linear"
        )
