import math
from itertools import pairwise

import pytest
import torch

from alpacafarm.ops.masked import Moments, last_token, masked_mean, masked_sum, moments, scale, whiten


@pytest.fixture
def x():
    torch.manual_seed(0)
    return 3 * torch.randn(6, 5) + 2


@pytest.fixture
def mask():
    return torch.tensor([[1, 1, 1, 1, 1], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]] * 2).bool()


def test_sum_and_mean_are_those_of_the_selected_elements(x, mask):
    torch.testing.assert_close(masked_sum(x, mask), x[mask].sum())
    torch.testing.assert_close(masked_mean(x, mask), x[mask].mean())


@pytest.mark.parametrize("garbage", [math.nan, math.inf, 1e30])
def test_padding_reaches_neither_value_nor_gradient(x, mask, garbage):
    dirty_BT = x.masked_fill(~mask, garbage).requires_grad_()
    torch.testing.assert_close(masked_mean(dirty_BT, mask), masked_mean(x, mask))
    masked_sum(dirty_BT, mask).backward()
    torch.testing.assert_close(dirty_BT.grad, mask.float())
    torch.testing.assert_close(moments(dirty_BT, mask).std, moments(x, mask).std)


def test_a_mask_of_numbers_is_a_mask_of_booleans(x, mask):
    torch.testing.assert_close(masked_mean(x, mask.float()), masked_mean(x, mask))
    torch.testing.assert_close(last_token(mask.float()), last_token(mask))


def test_mean_and_std_of_an_empty_mask_are_zero(x):
    nothing_BT = torch.zeros_like(x)
    empty = moments(x, nothing_BT)
    assert [masked_mean(x, nothing_BT).item(), empty.mean.item(), empty.std.item()] == [0, 0, 0]


def test_last_token_is_where_the_mask_ends_whatever_the_padding_side():
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 0, 1, 0], [0, 0, 0, 0]])
    expected_BT = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(last_token(mask), expected_BT.bool())


def test_moments_are_those_of_the_population(x, mask):
    found = moments(x, mask)
    real = x[mask].double()
    torch.testing.assert_close(found.mean, real.mean())
    torch.testing.assert_close(found.std, real.std(unbiased=False))


def test_std_survives_a_mean_far_from_zero():
    x = torch.tensor([10000.0, 10001.0, 10002.0, 10003.0])
    found = moments(x, torch.ones(4))
    # float64 sums of squares near 1e8 leave about 8 digits of the variance
    torch.testing.assert_close(
        found.std, torch.tensor(math.sqrt(1.25), dtype=torch.float64), rtol=1e-7, atol=0
    )


@pytest.mark.parametrize("shards", [[0, 6], [0, 1, 6], [0, 3, 3, 5, 6]])
def test_whitening_over_uneven_shards_is_whitening_over_the_whole(x, mask, shards):
    parts = [(x[a:b], mask[a:b]) for a, b in pairwise(shards)]
    local = [moments(x, mask) for x, mask in parts]

    def all_reduce(_):
        return sum(torch.stack([m.count, m.total, m.square]) for m in local)

    whole_BT = whiten(x, mask, moments(x, mask))
    reduced = local[0].combined(all_reduce)
    added = sum(local[1:], start=local[0])
    for found in reduced, added:
        pieces = [whiten(x, mask, found) for x, mask in parts]
        torch.testing.assert_close(torch.cat(pieces), whole_BT)


def test_combining_sends_what_this_rank_has(x, mask):
    mine = moments(x, mask)
    twice = mine.combined(lambda sums: 2 * sums)
    assert [twice.count, twice.total, twice.square] == [2 * mine.count, 2 * mine.total, 2 * mine.square]


def test_whitened_has_mean_zero_and_std_one_on_the_mask_and_is_zero_off_it(x, mask):
    white_BT = whiten(x, mask, moments(x, mask))
    torch.testing.assert_close(white_BT[mask].mean(), torch.tensor(0.0))
    torch.testing.assert_close(white_BT[mask].std(unbiased=False), torch.tensor(1.0))
    assert (white_BT[~mask] == 0).all()


def test_scaled_has_root_mean_square_one_and_keeps_zeros(x, mask):
    x = x.masked_fill(x < 0, 0.0)
    scaled_BT = scale(x, mask, moments(x, mask))
    torch.testing.assert_close(scaled_BT[mask].square().mean(), torch.tensor(1.0))
    assert (scaled_BT[~mask] == 0).all()
    assert ((scaled_BT == 0) == ((x == 0) | ~mask)).all()


@pytest.mark.parametrize("value", [0.0, 0.3, -5.1])
def test_equal_values_are_scaled_to_one_or_stay_zero(value):
    x, everything = torch.full((1, 7), value), torch.ones(1, 7)
    torch.testing.assert_close(scale(x, everything, moments(x, everything)), x.sign())


def test_whitening_with_padding_counted_in_is_the_formula_of_alpaca_farm(x, mask):
    everything_BT = torch.ones_like(x)
    padded_BT = x * mask
    expected_BT = (padded_BT - padded_BT.mean()) / (padded_BT.std(unbiased=False) + 1e-8) + padded_BT.mean()
    counted = moments(padded_BT, everything_BT)
    found_BT = whiten(padded_BT, everything_BT, counted) + counted.mean
    torch.testing.assert_close(found_BT, expected_BT)


@pytest.mark.parametrize("value", [0.1, 0.3, 0.7, 5.1])
@pytest.mark.parametrize("n", [3, 6, 7, 11])
def test_equal_values_whiten_to_zero_not_to_nan(n, value):
    # for some of these the mean of the squares is rounded to less than the square of the mean
    x, everything = torch.full((1, n), value, dtype=torch.float64), torch.ones(1, n)
    white = whiten(x, everything, moments(x, everything))
    torch.testing.assert_close(white, torch.zeros_like(x))


def test_whitening_is_invariant_to_scale_and_shift_of_the_input(x, mask):
    def white(x):
        return whiten(x, mask, moments(x, mask))

    torch.testing.assert_close(white(7 * x - 3), white(x))


def test_moments_carry_no_gradient(x, mask):
    found: Moments = moments(x.requires_grad_(), mask)
    assert not found.std.requires_grad
