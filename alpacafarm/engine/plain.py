"""Plain torch under the engine contract: what DeepSpeed is tested against, and enough for one device.

Weights are whole on every rank; gradients are summed over ranks. bfloat16 models keep float32 master weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from alpacafarm.engine import saved
from alpacafarm.engine.dist import branch_rng, restore_rng, rng_state
from alpacafarm.engine.optimizer import adamw, parameter_groups, set_learning_rate
from alpacafarm.engine.step import (
    Export,
    Sums,
    buffers_in_state,
    checkpoint_gradients,
    global_weight,
    on_device,
    read_layout,
    write_layout,
)
from alpacafarm.ports import B, Dist, Layout, LossFn, Update
from alpacafarm.spec.method import OptimSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class PlainEngine:
    """Trains with `optim`, or is frozen without. A frozen one has no gradients at all."""

    def __init__(
        self,
        module: nn.Module,
        optim: OptimSpec | None,
        *,
        device: torch.device,
        dist: Dist,
        export: Export | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.module = module.to(device).eval()
        self.device = device
        self.dist = dist
        self.rank, self.world = dist.rank, dist.world
        self.layout = Layout("plain", dist.world)
        self._export = export
        self._optim = optim
        self._training = False
        if optim is None:
            module.requires_grad_(False)
            return
        if gradient_checkpointing:
            checkpoint_gradients(module)
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self._names, self._parameters = [*trained], [*trained.values()]
        self._masters = [_master(p) for p in self._parameters]
        master_of = dict(zip(self._parameters, self._masters, strict=True))
        groups = parameter_groups(module, optim.weight_decay)
        for group in groups:
            group["params"] = [master_of[p] for p in group["params"]]
        self._optimizer = adamw(groups, optim)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with torch.set_grad_enabled(self._training):
            return self.module(*on_device(args, self.device), **kwargs)

    def update(self, batches: Sequence[B], loss: LossFn[B], *, lr: float) -> Update:
        assert self._optim is not None, "a frozen engine was asked to train"
        weight = global_weight(batches, self.dist)
        sums = Sums()
        self._training = True
        self.module.train()
        try:
            for batch in batches:
                share = float(batch.weight > 0)
                loss_sum, metrics = loss(batch.to(self.device))
                (loss_sum * (share / weight)).backward()  # type: ignore[no-untyped-call]
                self._collect_gradients()
                sums.add(loss_sum, metrics, share)
        finally:
            self._training = False
            self.module.eval()
        self._sum_over_ranks()
        norm = nn.utils.clip_grad_norm_(self._masters, self._optim.max_grad_norm)
        set_learning_rate(self._optimizer.param_groups, lr)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        self._publish_masters()
        return sums.update(self.dist, weight, float(norm))

    @contextmanager
    def gathered(self) -> Iterator[PreTrainedModel]:
        with torch.no_grad():
            yield self.module.policy

    def export(self, path: Path) -> None:
        assert self._export is not None, "the engine was built without an exporter"
        if self.rank == 0:
            state = {name: p.detach().cpu() for name, p in self.module.named_parameters()}
            self._export(self.module, state | buffers_in_state(self.module), path)
        self.dist.barrier()

    def checkpoint(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        if self.rank == 0:
            weights = {name: master.detach() for name, master in zip(self._names, self._masters, strict=True)}
            torch.save({"weights": weights, "optimizer": self._optimizer.state_dict()}, path / "engine.pt")
        torch.save(rng_state(), path / f"rng_{self.rank}.pt")
        self.dist.barrier()
        if self.rank == 0:
            write_layout(path, self.layout)
        self.dist.barrier()

    def restore(self, path: Path) -> Layout:
        layout = read_layout(path)
        if layout == self.layout:
            self._read(path)
        else:
            self._take_over(path, layout)
        self._publish_masters()
        return layout

    def _read(self, path: Path) -> None:
        found = torch.load(path / "engine.pt", map_location=self.device, weights_only=True)
        for name, master in zip(self._names, self._masters, strict=True):
            master.data.copy_(found["weights"][name])
        self._optimizer.load_state_dict(found["optimizer"])
        restore_rng(torch.load(path / f"rng_{self.rank}.pt", weights_only=True))

    def _take_over(self, path: Path, layout: Layout) -> None:
        shards = [
            saved.Shard(master, [saved.Part(name, 0, 0, master.numel())])
            for name, master in zip(self._names, self._masters, strict=True)
        ]
        saved.read(path, layout).give(shards, self._optimizer)
        branch_rng(torch.load(path / "rng_0.pt", weights_only=True), self.rank)

    def _collect_gradients(self) -> None:
        """Adds low-precision gradients to their masters'; many small ones would be lost in bfloat16."""
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            if master is not parameter and parameter.grad is not None:
                gradient = parameter.grad.float()
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    def _sum_over_ranks(self) -> None:
        if self.world == 1:
            return
        for master in self._masters:
            if master.grad is None:
                master.grad = torch.zeros_like(master)
            torch.distributed.all_reduce(master.grad)

    def _publish_masters(self) -> None:
        for parameter, master in zip(self._parameters, self._masters, strict=True):
            if master is not parameter:
                parameter.data.copy_(master.data)


def _master(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter itself, or a float32 copy to train in its place."""
    return parameter if parameter.dtype == torch.float32 else nn.Parameter(parameter.detach().float())
