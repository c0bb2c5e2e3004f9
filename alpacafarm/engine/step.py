"""What every engine does around an optimiser step: global weights, sums of losses, a checkpoint's record."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alpacafarm.engine.optimizer import check_finite
from alpacafarm.errors import ArtifactError
from alpacafarm.ports import Dist, Layout, Update
from alpacafarm.text.collate import Batch

RECORD = "engine.json"
Export = Callable[[nn.Module, Mapping[str, Tensor], Path], None]  # module, whole state, folder


def global_weight(batches: Sequence[Batch], dist: Dist) -> float:
    """The weight of all micro-batches of all ranks."""
    assert batches, "every rank needs a micro-batch"
    (weight,) = dist.total([sum(batch.weight for batch in batches)])
    if weight <= 0:
        raise ValueError(
            "an optimiser step has no weight: none of its rows holds a token or pair to learn from; "
            "raise method.optim.batch_size, or drop rows with empty responses"
        )
    return weight


@dataclass
class Sums:
    """Loss and metrics over this rank's micro-batches. Kept on the device: reading each would wait for it."""

    loss: Tensor | None = None
    metrics: dict[str, Tensor] = field(default_factory=dict)

    def add(self, loss: Tensor, metrics: Mapping[str, Tensor], share: float = 1.0) -> None:
        """`share` is 0 for a micro-batch that only keeps this rank in step with the others."""
        loss = loss.detach().double() * share
        self.loss = loss if self.loss is None else self.loss + loss
        for name, value in metrics.items():
            value = torch.as_tensor(value).detach().double() * share
            self.metrics[name] = self.metrics[name] + value if name in self.metrics else value

    def update(self, dist: Dist, weight: float, grad_norm: float) -> Update:
        """Means over the global weight, the same on every rank."""
        assert self.loss is not None
        names = sorted(self.metrics)
        loss, *values = dist.total([float(self.loss), *(float(self.metrics[name]) for name in names)])
        check_finite(loss, grad_norm)
        metrics = {name: value / weight for name, value in zip(names, values, strict=True)}
        return Update(loss=loss / weight, grad_norm=grad_norm, weight=weight, metrics=metrics)


def on_device(values: Sequence[Any], device: torch.device) -> list[Any]:
    """Batches among the arguments of a forward pass, moved; the rest as it is."""
    return [value.to(device) if isinstance(value, Batch) else value for value in values]


def checkpoint_gradients(module: nn.Module) -> None:
    """Recompute activations in the backward pass, in each Hugging Face model of the module."""
    for model in module.children():
        # transformers 5 renamed it on the way
        enable: Any = (
            getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        )
        enable({"use_reentrant": False})


def buffers_in_state(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that belong to the weights."""
    kept = module.state_dict().keys()
    return {name: buffer.detach().cpu() for name, buffer in module.named_buffers() if name in kept}


def write_layout(path: Path, layout: Layout) -> None:
    """Records who wrote a checkpoint. Rank 0 calls it last: a checkpoint without it is not complete."""
    (path / RECORD).write_text(json.dumps(asdict(layout)))


def read_layout(path: Path) -> Layout:
    """Who wrote a checkpoint."""
    record = path / RECORD
    if not record.is_file():
        raise ArtifactError(
            f"{path} holds no complete engine checkpoint (no {RECORD}); delete it to start again"
        )
    return Layout(**json.loads(record.read_text()))
