"""DeepSpeed ZeRO stages 0 to 3 under the engine contract (Rajbhandari et al. 2020; arXiv:1910.02054).

The only file that imports deepspeed.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from alpacafarm.engine import masters, saved
from alpacafarm.engine.dist import branch_rng, ensure_group, restore_rng, rng_state
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
from alpacafarm.errors import ArtifactError
from alpacafarm.ports import B, Dist, Layout, LossFn, Update
from alpacafarm.spec.method import OptimSpec

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# DeepSpeed calls collectives by names that torch 2.13 has deprecated, once for each bucket.
warnings.filterwarnings("ignore", message=r"`torch\.distributed\.\w+` is deprecated", category=FutureWarning)


class DeepSpeedEngine:
    """Trains with `optim`. Without it the module is frozen and, at stage 3, sharded."""

    def __init__(
        self,
        module: nn.Module,
        optim: OptimSpec | None,
        *,
        config: Mapping[str, Any],
        device: torch.device,
        dist: Dist,
        export: Export | None = None,
        gradient_checkpointing: bool = False,
    ) -> None:
        self.module = module
        self.device = device
        self.dist = dist
        self.rank, self.world = dist.rank, dist.world
        self._stage = int(config["zero_optimization"]["stage"])
        self.layout = Layout("deepspeed", dist.world, self._stage)
        self.offload = offload_devices(config)
        self._export = export
        self._optim = optim
        self._training = False
        if optim is None:
            module.requires_grad_(False)
        elif gradient_checkpointing:
            checkpoint_gradients(module)
        self._engine = _initialize(module, optim, dict(config), dist)
        self._engine.eval()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """At stage 3 every rank must call equally often."""
        with torch.set_grad_enabled(self._training):
            return self._engine(*on_device(args, self.device), **kwargs)

    def update(self, batches: Sequence[B], loss: LossFn[B], *, lr: float) -> Update:
        assert self._optim is not None, "a frozen engine was asked to train"
        weight = global_weight(batches, self.dist)
        sums = Sums()
        self._training = True
        self._engine.train()
        try:
            rounds = max(self.dist.gather(len(batches)))
            for i in range(rounds):
                # Ranks with fewer micro-batches repeat their last one at weight 0: collectives must match.
                batch = batches[min(i, len(batches) - 1)]
                share = float(i < len(batches) and batch.weight > 0)
                self._engine.set_gradient_accumulation_boundary(i == rounds - 1)
                loss_sum, metrics = loss(batch.to(self.device))
                # DeepSpeed averages gradients over ranks; this loss is divided by the global weight already.
                self._engine.backward(loss_sum * (share * self.world / weight))
                sums.add(loss_sum, metrics, share)
        finally:
            self._training = False
            self._engine.eval()
        norm = self._clip_at_stage_0() if self._stage == 0 else None
        set_learning_rate(self._engine.optimizer.param_groups, lr)
        self._engine.step()
        return sums.update(
            self.dist, weight, float(self._engine.get_global_grad_norm() if norm is None else norm)
        )

    @contextmanager
    def gathered(self) -> Iterator[PreTrainedModel]:
        """At stage 3 all ranks enter and leave together; in between each may generate as long as it likes."""
        policy: Any = self.module.policy
        with torch.no_grad():
            if self._stage < 3:
                yield policy
                return
            import deepspeed

            # Gathering is not enough: the hooks would partition each layer again after its forward.
            with self._without_hooks(), deepspeed.zero.GatheredParameters(list(policy.parameters())):
                yield policy

    def export(self, path: Path) -> None:
        assert self._export is not None, "the engine was built without an exporter"
        state = self._whole_state()
        if self.rank == 0:
            self._export(self.module, state | buffers_in_state(self.module), path)
        self.dist.barrier()

    def checkpoint(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._engine.save_checkpoint(
            str(path), tag=saved.TAG, save_latest=False, exclude_frozen_parameters=True
        )
        torch.save(rng_state(), path / f"rng_{self.rank}.pt")
        self.dist.barrier()
        if self.rank == 0:
            write_layout(path, self.layout)
        self.dist.barrier()

    def restore(self, path: Path) -> Layout:
        layout = read_layout(path)
        swapped = self.offload["optimizer"] == "nvme"
        if layout == self.layout and saved.is_swapped(path) == swapped:
            # Frozen weights are not in it: they were loaded from where they came from.
            self._engine.load_checkpoint(str(path), tag=saved.TAG, load_module_strict=False)
            restore_rng(torch.load(path / f"rng_{self.rank}.pt", weights_only=True))
        else:
            self._take_over(path, layout)
        return layout

    def _take_over(self, path: Path, layout: Layout) -> None:
        if "nvme" in self.offload.values():
            raise ArtifactError(saved.immovable(path, layout))
        optimizer = self._engine.optimizer
        names = {parameter: name for name, parameter in self.module.named_parameters()}
        shards = masters.shards(optimizer, self._stage, names, self.rank)
        saved.read(path, layout).give(shards, optimizer if self._stage == 0 else optimizer.optimizer)
        masters.publish(optimizer, self._stage)
        branch_rng(torch.load(path / "rng_0.pt", weights_only=True), self.rank)

    def _clip_at_stage_0(self) -> Tensor:
        assert self._optim is not None
        trained = [p for p in self.module.parameters() if p.requires_grad]
        return nn.utils.clip_grad_norm_(trained, self._optim.max_grad_norm)

    def _whole_state(self) -> dict[str, Tensor]:
        """All parameters, on rank 0's CPU; gathered one by one, so that no device holds the whole model."""
        import deepspeed

        state: dict[str, Tensor] = {}
        for name, parameter in self.module.named_parameters():
            with deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
                if self.rank == 0:
                    state[name] = parameter.detach().cpu().clone()
        return state

    @contextmanager
    def _without_hooks(self) -> Iterator[None]:
        """Takes ZeRO-3's module hooks off for a while. DeepSpeed has no public call for it."""
        optimizer = self._engine.optimizer
        offload = optimizer if self._optim is None else optimizer.parameter_offload
        for parameter in self.module.parameters():
            parameter.ds_active_sub_modules.clear()  # type: ignore[attr-defined]
        for hook in (*offload.forward_hooks, *offload.backward_hooks):
            hook.remove()
        offload.forward_hooks, offload.backward_hooks = [], []
        try:
            yield
        finally:
            offload._register_deepspeed_module(offload.module)


def offload_devices(config: Mapping[str, Any]) -> dict[str, str]:
    """Where optimiser states and parameters are kept, as `cluster.zero.offload` names it."""
    section = config["zero_optimization"]
    roles = {"optimizer": "offload_optimizer", "parameters": "offload_param"}
    return {role: section.get(key, {}).get("device", "none") for role, key in roles.items()}


def _expected(record: logging.LogRecord) -> bool:
    """Drops warnings about what is meant to be so: AdamW from torch, and batches that are dataclasses."""
    message = record.getMessage()
    return "untested optimizer" not in message and "unknown inputs or outputs type" not in message


def _initialize(module: nn.Module, optim: OptimSpec | None, config: dict[str, Any], dist: Dist) -> Any:
    ensure_group()
    if not torch.cuda.is_available():
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # which it would choose anyway, with a warning
    import deepspeed
    from deepspeed.runtime import bf16_optimizer

    # bfloat16 at stage 1 prints the memory before each parameter group and first collects garbage, slowly.
    bf16_optimizer.see_memory_usage = lambda *args, **kwargs: None
    deepspeed.utils.logger.addFilter(_expected)
    # Otherwise it is compiled at first use, for 46 s; a killed compilation leaves a lock that hangs the next.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    optimizer = None if optim is None else adamw(parameter_groups(module, optim.weight_decay), optim)
    engine, *_ = deepspeed.initialize(model=module, optimizer=optimizer, config=config)
    seen = deepspeed.comm.get_world_size()
    assert seen == dist.world, f"DeepSpeed sees {seen} ranks and the stage has {dist.world}"
    return engine
