"""What a checkpoint holds of each parameter, whichever engine wrote it, on however many ranks.

An engine reads its own files of as many ranks itself, to the bit. This is the way for all others: another
number of ranks, another ZeRO stage, the other engine. Files are mapped into memory, so that a rank reads what
it takes of them and no more. How DeepSpeed 0.19 lays its files out is known here alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alpacafarm.errors import ArtifactError
from alpacafarm.ports import Layout

MOMENTS = ("exp_avg", "exp_avg_sq")  # of Adam, by torch's names
STATES = ("weight", *MOMENTS)
TAG = "engine"  # DeepSpeed's name for the sub-folder of a checkpoint


@dataclass(frozen=True)
class Piece:
    """The elements of a flattened parameter from `start` on: float32 weights and moments, by STATES."""

    start: int
    states: Mapping[str, Tensor]


@dataclass(frozen=True)
class Part:
    """`count` elements of the flattened parameter `name` from `start` on: they lie at `place` in a tensor."""

    name: str
    start: int
    place: int
    count: int


@dataclass(frozen=True)
class Shard:
    """A tensor that an optimiser steps on this rank, and what it is made of. The rest of it is padding."""

    master: Tensor
    parts: Sequence[Part]


@dataclass(frozen=True)
class Saved:
    steps: float  # that the optimiser had made
    pieces: Mapping[str, Sequence[Piece]]  # by parameter

    def give(self, shards: Iterable[Shard], optimizer: torch.optim.Optimizer) -> None:
        """Puts weights and moments into the shards, which are all that `optimizer` steps on this rank."""
        for shard in shards:
            moments = {name: torch.zeros_like(shard.master.data) for name in MOMENTS}
            for name, values in {"weight": shard.master.data, **moments}.items():
                for part in shard.parts:
                    target = values.view(-1)[part.place : part.place + part.count]
                    self._copy(part.name, name, part.start, target)
            optimizer.state[shard.master] = {"step": torch.tensor(self.steps), **moments}

    def _copy(self, name: str, state: str, start: int, target: Tensor) -> None:
        """Fills `target` with the elements of a parameter from `start` on."""
        stop, copied = start + target.numel(), 0
        for piece in self.pieces.get(name, ()):
            values = piece.states[state]
            low, high = max(start, piece.start), min(stop, piece.start + values.numel())
            if low < high:
                target[low - start : high - start].copy_(values[low - piece.start : high - piece.start])
                copied += high - low
        if copied != target.numel():
            raise ArtifactError(
                f"the checkpoint holds {copied} of {target.numel()} elements of {name}; delete the stage's "
                "scratch folder to start the stage again"
            )


def is_swapped(path: Path) -> bool:
    """Whether DeepSpeed kept the optimiser's states on NVMe, and copied them as they lay there."""
    return (path / TAG / "offloaded_tensors").is_dir()


def immovable(path: Path, layout: Layout) -> str:
    """Why a checkpoint cannot be taken over, and the way out."""
    stage = "" if layout.stage is None else f" cluster.zero.stage={layout.stage}"
    offload = " cluster.zero.offload.optimizer=nvme" if is_swapped(path) else ""
    return (
        f"the checkpoint {path} was written with cluster.processes={layout.world} "
        f"cluster.engine={layout.engine}{stage}{offload}, and what lies on nvme cannot be taken over from or "
        f"by other settings; go on with those, or delete {path.parent} to start the stage again"
    )


def read(path: Path, layout: Layout) -> Saved:
    """The checkpoint in `path`, which `layout` wrote. ArtifactError where it cannot be read."""
    if is_swapped(path):
        raise ArtifactError(immovable(path, layout))
    if layout.stage is None:
        whole = _load(path / "engine.pt")
        return _whole(whole["weights"], whole["optimizer"])
    folder = path / TAG
    if layout.stage == 0:
        state = _load(folder / "mp_rank_00_model_states.pt")
        return _whole(state["module"], state["optimizer"])
    prefix = "bf16_" if (folder / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt").exists() else ""
    shards = [
        _load(folder / f"{prefix}zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")["optimizer_state_dict"]
        for rank in range(layout.world)
    ]
    if layout.stage < 3:
        return _by_group(shards)
    shapes = _load(folder / "zero_pp_rank_0_mp_rank_00_model_states.pt")["param_shapes"]
    return _by_parameter(shards, shapes)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise ArtifactError(f"{path} is missing; delete the stage's scratch folder to start the stage again")
    # Beside tensors DeepSpeed saves objects of its own, and reads them back in the same way.
    return torch.load(path, map_location="cpu", mmap=True, weights_only=False)


def _whole(weights: Mapping[str, Tensor], optimizer: Mapping[str, Any]) -> Saved:
    """Plain torch and stage 0: nothing is cut."""
    pieces, steps = {}, 0.0
    for group in optimizer["param_groups"]:
        for name, number in zip(group["names"], group["params"], strict=True):
            state = optimizer["state"].get(number, {})  # none where the parameter never had a gradient
            flat = {"weight": weights[name].reshape(-1)}
            flat |= {
                moment: state[moment].reshape(-1) if state else torch.zeros_like(flat["weight"])
                for moment in MOMENTS
            }
            pieces[name] = [Piece(0, flat)]
            steps = max(steps, float(state.get("step", 0.0)))
    return Saved(steps, pieces)


def _by_group(shards: Sequence[Mapping[str, Any]]) -> Saved:
    """Stages 1 and 2: each group of parameters is one flat tensor, of which every rank has a share."""
    pieces: dict[str, list[Piece]] = defaultdict(list)
    taken: dict[str, int] = defaultdict(int)
    for shard in shards:
        for group, parts in enumerate(shard["param_slice_mappings"]):
            adam = shard["base_optimizer_state"]["state"][group]
            flat = {"weight": shard["single_partition_of_fp32_groups"][group], **adam}
            for name, part in parts.items():
                values = {state: flat[state].narrow(0, part.start, part.numel) for state in STATES}
                pieces[name].append(Piece(taken[name], values))
                taken[name] += part.numel
    return Saved(float(adam["step"]), pieces)


def _by_parameter(shards: Sequence[Mapping[str, Any]], shapes: Sequence[Mapping[str, torch.Size]]) -> Saved:
    """Stage 3: of each parameter every rank has an equal share, filled up where it does not come out even.

    `shapes` are the parameters of each flat tensor, in its order.
    """
    pieces: dict[str, list[Piece]] = defaultdict(list)
    for rank, shard in enumerate(shards):
        for group, parameters in enumerate(shapes):
            adam = shard["optimizer_state_dict"]["state"][group]
            flat = {"weight": shard["fp32_flat_groups"][group], **adam}
            place = 0
            for name, shape in parameters.items():
                share = -(-math.prod(shape) // len(shards))
                count = max(0, min(share, math.prod(shape) - rank * share))
                values = {state: flat[state].narrow(0, place, count) for state in STATES}
                pieces[name].append(Piece(rank * share, values))
                place += share
    return Saved(float(adam["step"]), pieces)
