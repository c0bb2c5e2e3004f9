"""Where DeepSpeed keeps what it trains: the float32 tensors of this rank, and the way back into the model.

The optimisers of DeepSpeed 0.19 are meant; what is read of them is not its public interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch.nn import Parameter

from alpacafarm.engine.saved import Part, Shard


def shards(optimizer: Any, stage: int, names: Mapping[Parameter, str], rank: int) -> Iterator[Shard]:
    """What the torch optimiser inside `optimizer` steps on this rank at a ZeRO stage."""
    if stage == 0:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            yield Shard(parameter, [Part(names[parameter], 0, 0, parameter.numel())])
    elif stage < 3:
        yield from _of_groups(optimizer, names)
    else:
        yield from _of_parameters(optimizer, names, rank)


def publish(optimizer: Any, stage: int) -> None:
    """Makes the model's own weights those of the masters. All ranks call."""
    if stage in (1, 2):
        optimizer.update_lp_params()
    elif stage == 3:
        optimizer.checkpoint_event_prologue()
        for number in range(len(optimizer.fp16_groups)):
            optimizer._reassign_or_swap_out_partitioned_parameters(number)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
        optimizer.checkpoint_event_epilogue()


def _of_groups(optimizer: Any, names: Mapping[Parameter, str]) -> Iterator[Shard]:
    if hasattr(optimizer, "bf16_groups"):  # stage 1 in bfloat16 has an optimiser of its own
        groups, masters = optimizer.bf16_groups, optimizer.fp32_groups_flat_partition
    else:
        groups, masters = optimizer.bit16_groups, optimizer.single_partition_of_fp32_groups
    for group, master in zip(groups, masters, strict=True):
        here = [(names[p], p._hp_mapping) for p in group if p._hp_mapping is not None]
        yield Shard(
            master,
            [
                Part(
                    name,
                    start=mapping.lp_fragment_address.start,
                    place=mapping.hp_fragment_address.start,
                    count=mapping.hp_fragment_address.numel,
                )
                for name, mapping in here
            ],
        )


def _of_parameters(optimizer: Any, names: Mapping[Parameter, str], rank: int) -> Iterator[Shard]:
    for group, master in zip(optimizer.fp16_groups, optimizer.fp32_partitioned_groups_flat, strict=True):
        parts, place = [], 0
        for parameter in group:
            share = parameter.partition_numel()
            count = max(0, min(share, parameter.ds_numel - rank * share))
            parts.append(Part(names[parameter], rank * share, place, count))
            place += share
        yield Shard(master, parts)
