import pytest
import torch
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from alpacafarm.rollout.draw import draw, uniforms, weights
from alpacafarm.spec.model import Sampling

WORD = 2**64 - 1


def sampling(temperature=1.0, top_p=1.0, top_k=0) -> Sampling:
    return Sampling(temperature=temperature, top_p=top_p, top_k=top_k, max_new_tokens=1)


def splitmix64(state: int, count: int) -> list[int]:
    """The generator as published, with a state, in Python's integers."""
    numbers = []
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & WORD
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
        numbers.append(z ^ (z >> 31))
    return numbers


def test_streams_are_splitmix64_started_from_the_mixed_seed():
    # the reference itself against the numbers published for seed 1234567
    assert splitmix64(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]
    mixed = splitmix64((1234567 - 0x9E3779B97F4A7C15) & WORD, 1)[0]
    expected = [(z >> 40) / 2**24 for z in splitmix64(mixed, 5)]
    assert uniforms([1234567], 5)[0].tolist() == expected


def test_seeds_count_modulo_two_to_the_64():
    assert torch.equal(uniforms([-1, 5], 4), uniforms([2**64 - 1, 5 + 2**64], 4))
    assert not torch.equal(uniforms([5], 4), uniforms([5 + 2**63], 4))


def test_a_stream_does_not_depend_on_its_neighbours_or_its_length():
    whole = uniforms(list(range(10)), 20)
    torch.testing.assert_close(uniforms([7], 3)[0], whole[7, :3], rtol=0, atol=0)


def test_uniforms_of_neighbouring_seeds_are_uniform_and_uncorrelated():
    u = uniforms(list(range(1000)), 100).double()
    assert u.min() >= 0
    assert u.max() < 1
    counts = torch.histc(u, bins=100, min=0, max=1)
    assert ((counts - 1000) ** 2 / 1000).sum() < 149  # chi-square, 99 degrees of freedom, p = 0.001
    for other in (u.roll(1, 0), u.roll(1, 1)):  # next seed, next step
        correlation = torch.corrcoef(torch.stack([u.flatten(), other.flatten()]))[0, 1]
        assert abs(correlation) < 3.3 / 100_000**0.5


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_an_even_grid_of_uniforms_draws_each_token_in_proportion(temperature):
    torch.manual_seed(0)
    logits, points = 2 * torch.randn(50), 20_000
    u = (torch.arange(points) + 0.5) / points
    drawn = draw(logits.expand(points, -1), u, sampling(temperature))
    counts = torch.bincount(drawn, minlength=50)
    expected = torch.softmax(logits.double() / temperature, -1) * points
    assert (counts - expected).abs().max() <= 1.01  # an interval holds its length in points, give or take one


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1, 5, 1), (0.7, 0, 0.9), (1.5, 10, 0.6), (1, 99, 0.2)]
)
def test_truncation_equals_the_processors_of_transformers(temperature, top_k, top_p):
    torch.manual_seed(0)
    logits = 2 * torch.randn(64, 30)
    expected = TemperatureLogitsWarper(float(temperature))(None, logits)
    if top_k:
        expected = TopKLogitsWarper(top_k)(None, expected)
    if top_p < 1:
        expected = TopPLogitsWarper(float(top_p))(None, expected)
    found = weights(logits, sampling(temperature, top_p, top_k))
    torch.testing.assert_close(found / found.sum(-1, keepdim=True), expected.softmax(-1))


def test_top_p_keeps_the_smallest_set_that_reaches_p():
    probability = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    for top_p, kept in [(0.35, [1]), (0.45, [1, 3]), (0.65, [1, 3]), (0.75, [1, 2, 3]), (0.95, [0, 1, 2, 3])]:
        found = weights(probability.log(), sampling(top_p=top_p))
        assert found[0].nonzero().flatten().tolist() == kept, top_p


def test_top_p_is_taken_of_the_distribution_at_the_temperature():
    logits = torch.tensor([[0.6, 0.3, 0.1]]).log()
    assert (weights(logits, sampling(top_p=0.7)) > 0).sum() == 2
    assert (weights(logits, sampling(temperature=0.2, top_p=0.7)) > 0).sum() == 1


@pytest.mark.parametrize("u", [0.0, 1 - 2.0**-24])
def test_tokens_of_probability_zero_are_never_drawn(u):
    logits = torch.full((1, 9), -torch.inf)
    logits[0, 4] = logits[0, 6] = -3.0
    assert draw(logits, torch.tensor([u]), sampling()).item() == (4 if u == 0 else 6)


@pytest.mark.parametrize("temperature", [1e-6, 1e-30])
def test_draw_goes_to_the_likeliest_token_as_temperature_goes_to_zero(temperature):
    torch.manual_seed(0)
    logits = 1000 * torch.randn(100, 20)
    assert torch.equal(draw(logits, torch.rand(100), sampling(temperature)), logits.argmax(-1))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_row_that_is_not_a_number_gives_the_vocabulary_size(bad):
    logits = torch.zeros(2, 7)
    logits[1, 3] = bad
    drawn = draw(logits, torch.tensor([0.2, 0.2]), sampling())
    assert drawn[0] < 7
    assert drawn[1] == 7


def test_half_precision_logits_are_drawn_from_in_single_precision():
    logits = torch.randn(1, 1000).bfloat16()
    found = weights(logits, sampling())
    torch.testing.assert_close(found / found.sum(), logits.float().softmax(-1))
