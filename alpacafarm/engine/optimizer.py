"""AdamW as every engine uses it: parameter groups, learning rates, and updates that are not finite."""

import math
from typing import Any

import torch
from torch import nn

from alpacafarm.errors import StageError
from alpacafarm.spec.method import OptimSpec


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters by weight decay and learning-rate scale.

    Norms, biases and other vectors are not decayed. A module may carry `lr_scales`, parameter-name prefixes
    to factors; `set_learning_rate` multiplies by them. `names` of the parameters are there for a checkpoint.
    """
    scales: dict[str, float] = getattr(module, "lr_scales", {})
    groups: dict[tuple[float, float], dict[str, nn.Parameter]] = {}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            scale = next((factor for prefix, factor in scales.items() if name.startswith(prefix)), 1.0)
            decay = weight_decay if parameter.dim() > 1 else 0.0
            groups.setdefault((decay, scale), {})[name] = parameter
    return [
        {"params": [*named.values()], "names": [*named], "weight_decay": decay, "lr_scale": scale}
        for (decay, scale), named in groups.items()
    ]


def adamw(groups: list[dict[str, Any]], optim: OptimSpec) -> torch.optim.AdamW:
    """The rate stands at zero until `set_learning_rate`."""
    first, second = optim.betas
    return torch.optim.AdamW(groups, lr=0.0, betas=(first, second), eps=optim.eps)


def set_learning_rate(groups: list[dict[str, Any]], lr: float) -> None:
    for group in groups:
        group["lr"] = lr * group["lr_scale"]


def check_finite(loss: float, grad_norm: float) -> None:
    """A diverged model must not train on, nor be exported."""
    if not (math.isfinite(loss) and math.isfinite(grad_norm)):
        raise StageError(
            f"loss={loss} and gradient norm={grad_norm} are not finite: training diverged; "
            "lower method.optim.lr, lengthen method.optim.warmup_fraction, or use model.dtype=float32"
        )
