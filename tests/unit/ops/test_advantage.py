import pytest
import torch

from alpacafarm.ops.advantage import gae, shaped_rewards


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
