"""What a stage's model states take on each device, before anything is loaded."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpacafarm.spec.model import ArchitectureSpec, ModelSpec

BYTES = {"float32": 4, "bfloat16": 2}
OPTIMIZER_BYTES = {"float32": 8, "bfloat16": 12}  # Adam's moments, and float32 masters beside bfloat16


def parameter_count(model: ModelSpec) -> int | None:
    """Parameters of the policy; None for a hub id, which is not looked up here."""
    if model.architecture is not None:
        return llama_parameters(model.architecture)
    folder = Path(str(model.path)).expanduser()
    files = sorted(folder.glob("*.safetensors"))
    return sum(map(tensor_elements, files)) if files else None


def llama_parameters(a: ArchitectureSpec) -> int:
    """Of `transformers.LlamaForCausalLM`: attention, feed-forward and norms of each layer, embeddings."""
    layer = 4 * a.hidden_size**2 + 3 * a.hidden_size * a.ff_size + 2 * a.hidden_size
    embeddings = a.vocab_size * a.hidden_size * (1 if a.tie_embeddings else 2)
    return a.layers * layer + embeddings + a.hidden_size


def tensor_elements(path: Path) -> int:
    """Elements of all tensors of a safetensors file, read from its header."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header: Mapping[str, Any] = json.loads(file.read(length))
    total = 0
    for name, told in header.items():
        if name != "__metadata__":
            elements = 1
            for size in told["shape"]:
                elements *= size
            total += elements
    return total


def state_bytes(
    parameters: int, *, dtype: str, stage: int, world: int, trained: int = 1, frozen: int = 0
) -> int:
    """Weights, gradients and optimiser states of one process (Rajbhandari et al. 2020, section 3).

    `trained` and `frozen` count models of the policy's size. Stage 1 shards the optimiser's states, 2 the
    gradients as well, 3 the weights too, frozen ones included. Activations, key-value cache and offloading
    are not in it.
    """
    weights = gradients = BYTES[dtype]
    states = OPTIMIZER_BYTES[dtype] / (world if stage >= 1 else 1)
    gradients_here = gradients / (world if stage >= 2 else 1)
    weights_here = weights / (world if stage >= 3 else 1)
    return round(parameters * (trained * (weights_here + gradients_here + states) + frozen * weights_here))
