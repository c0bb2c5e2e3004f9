"""A key-value cache that is written in place.

The cache of transformers grows by concatenation: every step copies all that came before, which on small
models costs more than the attention itself. Here the room for a whole response is taken at once.
"""

# Shapes: B rows, H key-value heads, C capacity in positions, D head size.

from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer


class InPlaceLayer(DynamicLayer):  # type: ignore[misc]  # transformers has no types here
    """Keys and values of one layer. `keys` and `values` are views of the filled part of the stores."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.device = key_states.device
        self.key_store_BHCD = _store(key_states, self.capacity)
        self.value_store_BHCD = _store(value_states, self.capacity)
        self._show(0)
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.keys.size(2)
        end = start + key_states.size(2)
        assert end <= self.capacity, (end, self.capacity)
        self.key_store_BHCD[:, :, start:end] = key_states
        self.value_store_BHCD[:, :, start:end] = value_states
        return self._show(end)

    def batch_select_indices(self, indices: Tensor) -> None:
        filled = self.keys.size(2)
        self.key_store_BHCD = self.key_store_BHCD.index_select(0, indices)
        self.value_store_BHCD = self.value_store_BHCD.index_select(0, indices)
        self._show(filled)

    def _show(self, filled: int) -> tuple[Tensor, Tensor]:
        self.keys = self.key_store_BHCD[:, :, :filled]
        self.values = self.value_store_BHCD[:, :, :filled]
        return self.keys, self.values


def new_cache(config: PreTrainedConfig, capacity: int) -> Cache:
    """The model's own kind of cache; layers with full attention are written in place."""
    cache = DynamicCache(config=config)
    for i, layer in enumerate(cache.layers):
        if type(layer) is DynamicLayer:  # sliding windows and recurrent states keep their own bookkeeping
            cache.layers[i] = InPlaceLayer(capacity)
    return cache


def _store(states: Tensor, capacity: int) -> Tensor:
    return states.new_empty((states.size(0), states.size(1), capacity, states.size(3)))
