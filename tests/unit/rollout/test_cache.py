import torch
from transformers import LlamaConfig, MistralConfig
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from alpacafarm.rollout.cache import InPlaceLayer, new_cache


def test_in_place_layer_equals_concatenation():
    torch.manual_seed(0)
    ours, theirs = InPlaceLayer(capacity=9), DynamicLayer()
    rows = 5
    for length in (4, 1, 1, 2):
        keys, values = torch.randn(rows, 2, length, 3), torch.randn(rows, 2, length, 6)
        for found, expected in zip(ours.update(keys, values), theirs.update(keys, values), strict=True):
            assert torch.equal(found, expected)
        assert ours.get_seq_length() == theirs.get_seq_length()
        assert ours.get_mask_sizes(1) == theirs.get_mask_sizes(1)
        keep = torch.randperm(rows)[1:]
        ours.batch_select_indices(keep)
        theirs.batch_select_indices(keep)
        assert torch.equal(ours.keys, theirs.keys)
        assert torch.equal(ours.values, theirs.values)
        rows = len(keep)


def test_only_layers_with_full_attention_are_replaced():
    small = {"num_hidden_layers": 2, "hidden_size": 8, "num_attention_heads": 2}
    assert [type(x) for x in new_cache(LlamaConfig(**small), 8).layers] == [InPlaceLayer] * 2
    sliding = new_cache(MistralConfig(**small, sliding_window=4), 8)
    assert [type(x) for x in sliding.layers] == [DynamicSlidingWindowLayer] * 2
