import random

import pytest
import torch

from alpacafarm.rollout import hf
from alpacafarm.rollout.draw import draw, uniforms
from alpacafarm.spec.model import Sampling

PAD, END, OTHER_END = 0, 1, 2
STEPS = 24
WHOLE = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=STEPS)


def some_prompts(count=20) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(3, 40) for _ in range(rng.randint(1, 12))] for _ in range(count)]


def sample(model, prompts, seeds, sampling=WHOLE, *, batch_size=8, eos_ids=(END,), on_batch=None):
    return hf.sample(
        model,
        prompts,
        sampling,
        seeds=seeds,
        pad_id=PAD,
        eos_ids=eos_ids,
        batch_size=batch_size,
        on_batch=on_batch,
    )


@torch.no_grad()
def slowly(model, prompt, seed, sampling, eos_ids) -> tuple[int, ...]:
    """One row, no cache, no padding: the whole text through the model for every token."""
    response: list[int] = []
    for u in uniforms([seed], sampling.max_new_tokens)[0]:
        logits = model(input_ids=torch.tensor([[*prompt, *response]]), use_cache=False).logits[:, -1]
        logits[:, PAD] = -torch.inf
        response.append(int(draw(logits, u[None], sampling)))
        if response[-1] in eos_ids:
            break
    return tuple(response)


@pytest.mark.parametrize(
    "sampling", [WHOLE, Sampling(temperature=0.7, top_p=0.9, top_k=15, max_new_tokens=STEPS)]
)
def test_sampling_equals_one_row_at_a_time_without_cache(model, sampling):
    prompts, eos = some_prompts(), {END, OTHER_END}
    found = sample(model, prompts, range(20), sampling, eos_ids=eos)
    expected = [slowly(model, prompt, seed, sampling, eos) for seed, prompt in enumerate(prompts)]
    assert found.responses == expected
    assert found.ended == [response[-1] in eos for response in expected]
    assert True in found.ended
    assert False in found.ended
    assert len({len(response) for response in expected}) > 5  # rows leave the batch at different times


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_a_row_depends_on_its_prompt_and_seed_only(llama, batch_size):
    prompts = some_prompts()
    whole = sample(llama, prompts, range(20))
    order = random.Random(1).sample(range(20), 13)  # others, in another order
    part = sample(llama, [prompts[i] for i in order], order, batch_size=batch_size)
    assert part.responses == [whole.responses[i] for i in order]
    assert part.ended == [whole.ended[i] for i in order]


def test_seeds_tell_rows_of_one_prompt_apart(llama):
    found = sample(llama, [[5, 6]] * 20, range(20))
    assert len(set(found.responses)) > 15


def test_removing_ended_rows_changes_nothing(llama, monkeypatch):
    widths = []
    forward = llama.forward

    def watched(*args, **kwargs):
        widths.append(kwargs["input_ids"].size(0))
        return forward(*args, **kwargs)

    monkeypatch.setattr(llama, "forward", watched)
    found = {}
    for share in (0.0, 0.75, 1.0):  # never, as shipped, as soon as a row ends
        monkeypatch.setattr(hf, "COMPACT_BELOW", share)
        widths.clear()
        found[share] = sample(llama, some_prompts(), range(20), batch_size=20)
        assert (min(widths) < 20) == (share > 0)
    assert found[0.0] == found[0.75] == found[1.0]


@pytest.mark.parametrize("sampling", [{"temperature": 1e-6, "top_k": 0}, {"temperature": 1.0, "top_k": 1}])
def test_greedy_limits_equal_greedy_generate(model, sampling):
    prompts = some_prompts(6)
    found = sample(model, prompts, range(6), Sampling(**sampling, top_p=1.0, max_new_tokens=STEPS))
    for prompt, response in zip(prompts, found.responses, strict=True):
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=STEPS,
            eos_token_id=END,
            pad_token_id=PAD,
            suppress_tokens=[PAD],
        )
        assert response == tuple(expected[0, len(prompt) :].tolist())


def test_two_tokens_have_the_probability_the_model_gives_them(llama):
    prompt, rows = [7, 8, 9], 30_000
    sampling = Sampling(temperature=0.8, top_p=1.0, top_k=0, max_new_tokens=2)
    found = sample(llama, [prompt] * rows, range(rows), sampling, batch_size=rows, eos_ids=())
    counts = torch.zeros(40, 40, dtype=torch.float64)
    for first, second in found.responses:
        counts[first, second] += 1

    def next_token(ids):
        logits = llama(input_ids=ids).logits[:, -1].double() / 0.8
        logits[:, PAD] = -torch.inf
        return logits.softmax(-1)

    with torch.no_grad():
        first = next_token(torch.tensor([prompt]))[0]
        second = next_token(torch.tensor([[*prompt, token] for token in range(40)]))
    expected = rows * first[:, None] * second
    often = expected >= 5
    chi_square = ((counts - expected)[often] ** 2 / expected[often]).sum()
    degrees = int(often.sum()) - 1
    assert degrees > 100
    assert chi_square < degrees + 3.3 * (2 * degrees) ** 0.5  # normal approximation, p = 0.0005
    rare, expected_rare = float(counts[~often].sum()), float(expected[~often].sum())
    assert abs(rare - expected_rare) < 3.3 * expected_rare**0.5


def test_the_end_token_is_kept_once_and_reaching_the_limit_is_not_an_end(llama):
    found = sample(llama, some_prompts(), range(20))
    for response, ended in zip(found.responses, found.ended, strict=True):
        assert response.count(END) == ended
        assert (response[-1] == END) == ended
        assert len(response) == STEPS or ended


def test_an_end_on_the_last_step_has_ended(llama):
    prompts = some_prompts()
    responses = sample(llama, prompts, range(20)).responses
    row = next(i for i, response in enumerate(responses) if 1 < len(response) < STEPS)
    limit = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=len(responses[row]))
    found = sample(llama, [prompts[row]], [row], limit)
    assert found.responses == [responses[row]]
    assert found.ended == [True]


@pytest.fixture
def loves_padding(llama):
    def favour(module, args, logits):
        logits[..., PAD] += 50.0
        return logits

    handle = llama.lm_head.register_forward_hook(favour)
    yield llama
    handle.remove()


def test_padding_is_never_drawn_however_likely(loves_padding):
    found = sample(loves_padding, some_prompts(), range(20))
    assert not any(PAD in response for response in found.responses)


def test_control_tokens_are_never_drawn_however_likely(llama):
    control = {7, 39}

    def favour(module, args, logits):
        logits[..., list(control)] += 50.0
        return logits

    handle = llama.lm_head.register_forward_hook(favour)
    try:
        loved, barred = (
            hf.sample(
                llama,
                some_prompts(),
                WHOLE,
                seeds=range(20),
                pad_id=PAD,
                eos_ids=(END,),
                unspoken_ids=unspoken,
                batch_size=8,
            )
            for unspoken in ((), control)
        )
    finally:
        handle.remove()
    assert all(set(response) <= control for response in loved.responses)
    assert all(control.isdisjoint(response) and PAD not in response for response in barred.responses)
    assert len({token for response in barred.responses for token in response}) > 10


def test_padding_that_is_also_the_end_token_ends_a_row(loves_padding):
    found = sample(loves_padding, some_prompts(3), range(3), eos_ids=[PAD])
    assert found.responses == [(PAD,)] * 3
    assert found.ended == [True] * 3


def test_the_models_own_generation_settings_play_no_part(llama, monkeypatch):
    expected = sample(llama, some_prompts(), range(20))
    for name, value in {"max_new_tokens": 2, "temperature": 0.1, "top_k": 1, "eos_token_id": 9}.items():
        monkeypatch.setattr(llama.generation_config, name, value)
    assert sample(llama, some_prompts(), range(20)) == expected


def test_global_random_state_is_left_alone(llama):
    before = torch.get_rng_state()
    sample(llama, some_prompts(3), range(3))
    assert torch.equal(torch.get_rng_state(), before)


def test_on_batch_hears_of_every_row(llama):
    done: list[int] = []
    sample(llama, some_prompts(), range(20), on_batch=done.append)
    assert done == [8, 8, 4]


def test_no_prompts_give_no_responses(llama):
    assert sample(llama, [], []) == hf.Sampled([], [])


def test_weights_that_diverged_are_named(llama):
    weight = llama.lm_head.weight
    kept = weight[5].clone()
    try:
        with torch.no_grad():
            weight[5] = torch.nan
        with pytest.raises(ValueError, match=r"not numbers at response token 0.*lower method\.optim\.lr"):
            sample(llama, some_prompts(), range(20))
    finally:
        with torch.no_grad():
            weight[5] = kept


def test_rows_longer_than_the_model_are_refused_before_sampling(llama):
    message = r"prompt of 41 tokens and max_new_tokens=24 .* 64 positions; set max_new_tokens or"
    with pytest.raises(ValueError, match=message):
        sample(llama, [[3] * 41], [0])
    assert len(sample(llama, [[3] * 40], [0]).responses) == 1


def test_every_prompt_needs_a_seed(llama):
    with pytest.raises(ValueError, match="1 seeds for 2 prompts; one seed for each is required"):
        sample(llama, [[3], [4]], [0])
