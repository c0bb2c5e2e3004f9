import math
from functools import partial

import pytest
import torch

from alpacafarm.ops.advantage import (
    gae,
    group_relative,
    leave_one_out,
    on_every_token,
    reward_to_go,
    shaped_rewards,
)


@pytest.fixture
def batch():
    """Rewards, values and masks of rows that end early, start late, do both, fill the width, or are empty."""
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 0, 0], [1] * 6, [0] * 6])
    return torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 6, dtype=torch.float64), mask.bool()


def naive_gae(reward, value, mask, *, gamma, lam):
    """Eq. 16 as it stands, a double sum over the response tokens of each row in plain Python."""
    advantage = torch.zeros_like(reward)
    for b in range(len(reward)):
        places = mask[b].nonzero().flatten().tolist()
        r, v = [reward[b, t].item() for t in places], [value[b, t].item() for t in places] + [0.0]
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(places))]
        for t, place in enumerate(places):
            advantage[b, place] = sum((gamma * lam) ** i * d for i, d in enumerate(delta[t:]))
    return advantage


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_gae_is_the_double_sum(batch, gamma, lam):
    reward, value, mask = batch
    expected = naive_gae(reward, value, mask, gamma=gamma, lam=lam)
    torch.testing.assert_close(gae(reward, value, mask, gamma=gamma, lam=lam), expected)


def test_gae_with_lambda_one_is_reward_to_go_minus_value():
    torch.manual_seed(0)
    reward, value, mask = torch.randn(3, 5), torch.randn(3, 5), torch.ones(3, 5)
    to_go = reward.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(gae(reward, value, mask, gamma=1.0, lam=1.0), to_go - value)


def test_gae_with_lambda_zero_is_the_temporal_difference():
    torch.manual_seed(0)
    reward, value, mask = torch.randn(3, 5), torch.randn(3, 5), torch.ones(3, 5)
    next_value = torch.cat([value[:, 1:], torch.zeros(3, 1)], 1)
    torch.testing.assert_close(
        gae(reward, value, mask, gamma=0.9, lam=0.0), reward + 0.9 * next_value - value
    )


def test_a_critic_that_knows_the_reward_to_go_leaves_no_advantage(batch):
    reward, _, mask = batch
    reward = reward * mask
    to_go = reward.flip(1).cumsum(1).flip(1)
    torch.testing.assert_close(gae(reward, to_go, mask, gamma=1.0, lam=0.95), torch.zeros_like(reward))


def test_advantage_is_zero_on_padding_and_blind_to_it(batch):
    reward, value, mask = batch
    clean = gae(reward, value, mask, gamma=0.9, lam=0.95)
    dirty = gae(reward.where(mask, 1e6), value.where(mask, -1e6), mask, gamma=0.9, lam=0.95)
    torch.testing.assert_close(dirty, clean)
    assert (clean[~mask] == 0).all()


@pytest.mark.parametrize(("left", "right"), [(3, 0), (0, 3), (2, 2)])
def test_advantage_does_not_depend_on_the_width_of_the_batch(batch, left, right):
    wide = [torch.nn.functional.pad(x, (left, right)) for x in batch]
    found = gae(*wide, gamma=0.9, lam=0.95)[:, left : left + 6]
    torch.testing.assert_close(found, gae(*batch, gamma=0.9, lam=0.95))


def test_rows_do_not_see_each_other(batch):
    order = torch.tensor([3, 0, 4, 2, 1])
    found = gae(*[x[order] for x in batch], gamma=0.9, lam=0.95)
    torch.testing.assert_close(found, gae(*batch, gamma=0.9, lam=0.95)[order])


def test_score_lands_on_the_last_response_token_and_penalty_on_every_one():
    mask = torch.tensor([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [0, 0, 0, 0]])
    kl = torch.tensor([[1.0, 2.0, 9.0, 9.0], [9.0, 9.0, 3.0, -4.0], [9.0, 0.0, 5.0, 9.0], [9.0] * 4])
    score = torch.tensor([10.0, 20.0, 30.0, 40.0])
    expected = torch.tensor([[-0.1, 9.8, 0, 0], [0, 0, -0.3, 20.4], [0, 0, 29.5, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(shaped_rewards(score, kl, mask, kl_coef=0.1), expected)


def test_rewards_of_a_row_sum_to_score_minus_weighted_kl(batch):
    _, kl, mask = batch
    score = torch.arange(5, dtype=torch.float64)
    total = shaped_rewards(score, kl, mask, kl_coef=0.3).sum(1)
    torch.testing.assert_close(total[:4], (score - 0.3 * (kl * mask).sum(1))[:4])
    assert total[4] == 0  # the row without response tokens


def test_a_broken_score_of_an_empty_row_or_kl_on_padding_does_not_spread():
    mask = torch.tensor([[1, 0], [0, 0]])
    kl = torch.tensor([[1.0, float("nan")], [float("inf")] * 2])
    found = shaped_rewards(torch.tensor([2.0, float("nan")]), kl, mask, kl_coef=0.5)
    torch.testing.assert_close(found, torch.tensor([[1.5, 0.0], [0.0, 0.0]]))


@pytest.fixture
def rewards():
    """Five groups of four."""
    return torch.randn(20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_leave_one_out_is_the_loop_over_the_others(rewards):
    expected = []
    for start in range(0, 20, 4):
        group = rewards[start : start + 4].tolist()
        expected += [r - sum(group[:i] + group[i + 1 :]) / 3 for i, r in enumerate(group)]
    torch.testing.assert_close(leave_one_out(rewards, 4), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("group", [2, 4, 10])
def test_leave_one_out_is_the_centred_reward_stretched(rewards, group):
    centred = group_relative(rewards, group, scaled=False)
    torch.testing.assert_close(leave_one_out(rewards, group), centred * group / (group - 1))


def test_group_relative_is_numpys_formula(rewards):
    groups = rewards.numpy().reshape(5, 4)
    centred = groups - groups.mean(1, keepdims=True)
    scaled = centred / groups.std(1, ddof=1, keepdims=True)
    for found, expected in (
        (group_relative(rewards, 4, scaled=False), centred),
        (group_relative(rewards, 4, scaled=True), scaled),
    ):
        torch.testing.assert_close(found, torch.from_numpy(expected).flatten())


def test_two_responses_win_and_lose_by_one_over_the_root_of_two():
    found = group_relative(torch.tensor([3.0, 1.0, -2.0, 5.0, 7.0, 7.0]), 2, scaled=True)
    half = 1 / math.sqrt(2)
    torch.testing.assert_close(found, torch.tensor([half, -half, -half, half, 0.0, 0.0]))


@pytest.mark.parametrize("size", [1.0, 30.0])
def test_a_group_that_differs_by_rounding_alone_has_no_advantage(size):
    rewards = torch.tensor([size, size * (1 + 1e-6), size, size * (1 - 1e-6)])
    assert not group_relative(rewards, 4, scaled=True).any()


@pytest.mark.parametrize(
    "estimator",
    [leave_one_out, partial(group_relative, scaled=False), partial(group_relative, scaled=True)],
)
def test_groups_do_not_see_each_other_nor_a_common_shift(rewards, estimator):
    found = estimator(rewards, 4).view(5, 4)
    order = torch.tensor([3, 0, 4, 2, 1])
    torch.testing.assert_close(estimator(rewards.view(5, 4)[order].flatten(), 4).view(5, 4), found[order])
    shifted = rewards + torch.arange(5.0, dtype=torch.float64).repeat_interleave(4)
    torch.testing.assert_close(estimator(shifted, 4).view(5, 4), found)
    torch.testing.assert_close(found.sum(1), torch.zeros(5, dtype=torch.float64))


def test_only_the_scaled_advantage_ignores_the_unit_of_the_reward(rewards):
    torch.testing.assert_close(
        group_relative(3 * rewards, 4, scaled=True), group_relative(rewards, 4, scaled=True)
    )
    torch.testing.assert_close(leave_one_out(3 * rewards, 4), 3 * leave_one_out(rewards, 4))


def test_reward_to_go_is_the_sum_of_what_follows(batch):
    reward, _, mask = batch
    expected = torch.zeros_like(reward)
    for b in range(5):
        for t in range(6):
            if mask[b, t]:
                expected[b, t] = sum(reward[b, s].item() for s in range(t, 6) if mask[b, s])
    torch.testing.assert_close(reward_to_go(reward.where(mask, math.nan), mask), expected)


def test_an_advantage_of_a_response_stands_on_its_tokens_alone(batch):
    _, _, mask = batch
    found = on_every_token(torch.arange(1.0, 6.0), mask)
    torch.testing.assert_close(found, torch.arange(1.0, 6.0)[:, None] * mask)
