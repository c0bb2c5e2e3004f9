import pytest

from alpacafarm.rollout.order import by_length


def test_batches_hold_every_row_once_in_order_of_length():
    lengths = [5, 1, 9, 1, 7]
    assert by_length(lengths, 2) == [[1, 3], [0, 4], [2]]
    assert by_length([], 2) == []


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size=0 must be at least 1"):
        by_length([1], 0)
