"""A trained module as a Hugging Face folder that the Auto classes load."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from alpacafarm.models.load import is_adapter
from alpacafarm.models.lora import adapter_config, adapter_state, has_lora, merged_state

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Export = Callable[[nn.Module, Mapping[str, Tensor], Path], None]


def exporter(tokenizer: PreTrainedTokenizerBase, *, lora: Literal["merged", "adapter"] = "merged") -> Export:
    """What an engine calls on rank 0 with its module and whole state: `export_policy` or `export_reward`."""

    def export(module: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
        write = export_reward if hasattr(module, "reward") else export_policy
        write(module, state, path, tokenizer, lora=lora)

    return export


def export_policy(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lora: Literal["merged", "adapter"] = "merged",
) -> None:
    """The policy of a `LanguageModel` or `ActorCritic`; a value network is left behind."""
    _export(module, "policy", state, path, tokenizer, lora)


def export_reward(
    module: nn.Module,
    state: Mapping[str, Tensor],
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    lora: Literal["merged", "adapter"] = "merged",
) -> None:
    """The classifier of a `RewardModel`."""
    _export(module, "reward", state, path, tokenizer, lora)


def _export(
    module: nn.Module,
    role: str,
    state: Mapping[str, Tensor],
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    lora: Literal["merged", "adapter"],
) -> None:
    model: PreTrainedModel = getattr(module, role)
    prefix = f"{role}."
    own = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    path.mkdir(parents=True, exist_ok=True)
    # An adapter on an adapter is nothing that transformers could load.
    if has_lora(model) and lora == "adapter" and not is_adapter(model.config.name_or_path):
        _save_adapter(model, own, path)
    else:
        _save_whole(model, merged_state(model, own), path)
    tokenizer.save_pretrained(str(path))


def _save_whole(model: PreTrainedModel, state: dict[str, Tensor], path: Path) -> None:
    """Through an empty twin: the model may be sharded, or have adapters where the twin has plain layers."""
    with torch.device("meta"):
        twin = type(model)(model.config)
    if hasattr(model, "generation_config"):  # classifiers have none
        twin.generation_config = model.generation_config
    twin.to(model.dtype).save_pretrained(str(path), state_dict=state)


def _save_adapter(model: PreTrainedModel, state: dict[str, Tensor], path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {name: tensor.contiguous() for name, tensor in adapter_state(model, state).items()}
    save_file(tensors, path / "adapter_model.safetensors", metadata={"format": "pt"})
    adapter_config(model).save_pretrained(str(path))
