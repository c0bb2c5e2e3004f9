import math

import pytest
import torch
from torch import nn

from alpacafarm.ops.kl import exact_kl
from alpacafarm.ops.logprobs import (
    entropy,
    in_chunks,
    sequence_sum,
    token_logprobs,
    token_stats,
    token_stats_beside,
)


@pytest.fixture
def logits():
    torch.manual_seed(0)
    return 4 * torch.randn(7, 16, dtype=torch.float64)


@pytest.fixture
def target():
    return torch.tensor([0, 3, 15, 7, 7, 2, 9])


@pytest.mark.parametrize("temperature", [0.7, 1.0, 2.0])
def test_logprob_is_the_log_of_the_softmax_at_that_temperature(logits, target, temperature):
    weight_NV = (logits / temperature).exp()
    expected_N = (weight_NV / weight_NV.sum(1, keepdim=True)).log()[range(7), target]
    torch.testing.assert_close(token_logprobs(logits, target, temperature=temperature), expected_N)


def test_probabilities_of_all_targets_sum_to_one(logits):
    every = [token_logprobs(logits, torch.full((7,), v), temperature=0.7).exp() for v in range(16)]
    torch.testing.assert_close(torch.stack(every).sum(0), torch.ones(7, dtype=torch.float64))


def test_logprobs_ignore_a_constant_added_to_the_logits(logits, target):
    shifted_N = token_logprobs(logits + 1000, target, temperature=1.0)
    torch.testing.assert_close(shifted_N, token_logprobs(logits, target, temperature=1.0))


def test_bfloat16_logits_are_normalised_in_float32(logits, target):
    half_NV = logits.bfloat16()
    found_N = token_logprobs(half_NV, target, temperature=0.7)
    exact_N = token_logprobs(half_NV.double(), target, temperature=0.7)
    torch.testing.assert_close(found_N, exact_N.float())
    torch.testing.assert_close(
        entropy(half_NV, temperature=0.7), entropy(half_NV.double(), temperature=0.7).float()
    )


def test_leading_axes_may_be_rows_and_positions(logits, target):
    flat_N = token_logprobs(logits[:6], target[:6], temperature=1.0)
    shaped_BT = token_logprobs(logits[:6].view(2, 3, 16), target[:6].view(2, 3), temperature=1.0)
    torch.testing.assert_close(shaped_BT.flatten(), flat_N)


def test_entropy_of_a_uniform_distribution_is_log_v_and_of_a_certain_one_zero():
    uniform_V, certain_V = torch.zeros(16), torch.tensor([0.0] + [-math.inf] * 15)
    found = entropy(torch.stack([uniform_V, certain_V]), temperature=1.0)
    torch.testing.assert_close(found, torch.tensor([math.log(16), 0.0]))


def test_entropy_is_the_expected_surprise(logits):
    p_NV = torch.softmax(logits / 1.3, -1)
    torch.testing.assert_close(entropy(logits, temperature=1.3), -(p_NV * p_NV.log()).sum(-1))


def test_entropy_with_impossible_tokens_has_the_gradient_of_the_possible_ones(logits):
    few_NV = logits[:, :10].clone().requires_grad_()
    entropy(few_NV, temperature=1.0).sum().backward()
    impossible_NV = torch.full((7, 6), -math.inf, dtype=torch.float64)
    all_NV = torch.cat([logits[:, :10], impossible_NV], 1).requires_grad_()
    entropy(all_NV, temperature=1.0).sum().backward()
    torch.testing.assert_close(all_NV.grad, torch.cat([few_NV.grad, torch.zeros_like(impossible_NV)], 1))


def stats_and_gradients(chunk):
    torch.manual_seed(1)
    head = nn.Linear(5, 16).double()
    hidden_NH = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    target_N = torch.randint(16, (7,))
    found = token_stats(hidden_NH, head, target_N, temperature=0.7, chunk=chunk, with_entropy=True)
    (found.logprob_N.sin() + found.entropy_N.cos()).sum().backward()
    return found.logprob_N, found.entropy_N, hidden_NH.grad, head.weight.grad, head.bias.grad


@pytest.mark.parametrize("chunk", [1, 2, 3, 6, 7])
def test_chunks_change_neither_values_nor_gradients(chunk):
    torch.testing.assert_close(stats_and_gradients(chunk), stats_and_gradients(100))


def test_stats_are_logprob_and_entropy_of_the_heads_logits():
    torch.manual_seed(1)
    head, hidden_NH, target_N = nn.Linear(5, 16), torch.randn(7, 5), torch.randint(16, (7,))
    found = token_stats(hidden_NH, head, target_N, temperature=0.7, chunk=3, with_entropy=True)
    torch.testing.assert_close(found.logprob_N, token_logprobs(head(hidden_NH), target_N, temperature=0.7))
    torch.testing.assert_close(found.entropy_N, entropy(head(hidden_NH), temperature=0.7))
    assert (
        token_stats(hidden_NH, head, target_N, temperature=0.7, chunk=3, with_entropy=False).entropy_N is None
    )


def saved_for_backward(chunk):
    """Largest number of elements that autograd keeps from the forward pass, the head's weights aside."""
    head, hidden_NH, target_N = (
        nn.Linear(4, 64),
        torch.randn(32, 4, requires_grad=True),
        torch.zeros(32).long(),
    )
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
        found = token_stats(hidden_NH, head, target_N, temperature=1.0, chunk=chunk, with_entropy=True)
    assert found.logprob_N.requires_grad
    return max((x.numel() for x in saved if x.data_ptr() != head.weight.data_ptr()), default=0)


def test_no_block_of_logits_is_kept_for_the_backward_pass():
    assert saved_for_backward(chunk=32) >= 32 * 64  # one chunk: nothing to save, and the hook sees logits
    assert saved_for_backward(chunk=8) < 8 * 64


def test_without_gradients_the_head_sees_one_chunk_at_a_time_and_once():
    sizes = []

    def head(hidden_CH):
        sizes.append(len(hidden_CH))
        return hidden_CH

    with torch.no_grad():
        token_stats(
            torch.randn(7, 16), head, torch.zeros(7).long(), temperature=1.0, chunk=3, with_entropy=False
        )
    assert sizes == [3, 3, 1]


def test_no_tokens_give_no_stats():
    found = token_stats(
        torch.zeros(0, 5),
        nn.Linear(5, 16),
        torch.zeros(0).long(),
        temperature=1.0,
        chunk=3,
        with_entropy=True,
    )
    assert found.logprob_N.shape == found.entropy_N.shape == (0,)


def test_chunks_pair_the_slices_of_all_inputs():
    a, b = torch.arange(5.0), torch.arange(5.0).flip(0)
    (total,) = in_chunks(lambda x, y: (10 * x + y,), a, b, chunk=2)
    torch.testing.assert_close(total, 10 * a + b)


def test_sequence_sum_is_per_row_and_blind_to_padding():
    x_BT = torch.tensor([[math.nan, 1.0, 2.0], [3.0, -math.inf, -math.inf]])
    mask_BT = torch.tensor([[0, 1, 1], [1, 0, 0]])
    torch.testing.assert_close(sequence_sum(x_BT, mask_BT), torch.tensor([3.0, 3.0]))


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_stats_beside_a_reference_are_those_of_whole_logits_in_any_chunks(chunk):
    torch.manual_seed(0)
    weight, reference_weight = torch.randn(2, 16, 5, dtype=torch.float64)
    hidden_NH, reference_NH = torch.randn(2, 7, 5, dtype=torch.float64)
    weight.requires_grad_()
    target_N = torch.tensor([0, 3, 15, 7, 7, 2, 9])
    found = token_stats_beside(
        hidden_NH,
        lambda h: h @ weight.T,
        reference_NH,
        lambda h: h @ reference_weight.T,
        target_N,
        temperature=0.7,
        chunk=chunk,
    )
    logits_NV, reference_NV = hidden_NH @ weight.T, reference_NH @ reference_weight.T
    expected = (
        token_logprobs(logits_NV, target_N, temperature=0.7),
        entropy(logits_NV, temperature=0.7),
        exact_kl(logits_NV / 0.7, reference_NV / 0.7),
    )
    torch.testing.assert_close((found.logprob_N, found.entropy_N, found.kl_N), expected)
    factor_N = torch.randn(7, dtype=torch.float64)  # so that no sum hides a gradient in the wrong place
    ours, theirs = (
        torch.autograd.grad(sum((factor_N * x_N).sum() for x_N in stats), weight)[0]
        for stats in ((found.logprob_N, found.entropy_N, found.kl_N), expected)
    )
    torch.testing.assert_close(ours, theirs)
