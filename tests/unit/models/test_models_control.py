"""Rows for control tokens, and a policy that reads these tokens and never says them."""

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpacafarm.models.control import give_rows, unspoken_ids
from alpacafarm.models.export import exporter
from alpacafarm.models.heads import LanguageModel
from alpacafarm.models.load import load_policy, load_tokenizer
from alpacafarm.models.lora import apply_lora
from alpacafarm.spec.model import LoraSpec
from alpacafarm.text.collate import Tokens, collate
from alpacafarm.text.control import BAD, GOOD, add_control_tokens
from tests.unit.models import tiny

V = tiny.VOCABULARY
ROWS = [Tokens((V, *row.prompt), row.response) for row in tiny.rows(5)]


def conditioned(*, seed: int = 3, rows: int = V, architecture: str = "llama", **changes):
    """A policy with two control tokens and its tokenizer. `rows` may leave some to spare."""
    policy = tiny.policy(architecture, vocab_size=rows, **changes)
    tokenizer = tiny.tokenizer()
    add_control_tokens(tokenizer, [GOOD, BAD])
    give_rows(policy, tokenizer, known=V, seed=seed)
    return policy, tokenizer


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [V, V + 10])
def test_new_rows_are_spread_about_the_mean_as_the_old_ones_are(tied, rows):
    wide = {"hidden_size": 2048, "num_hidden_layers": 1, "tie_word_embeddings": tied}
    old, (policy, _) = tiny.policy(vocab_size=rows, **wide), conditioned(rows=rows, **wide)
    for layer in ("get_input_embeddings", "get_output_embeddings"):
        before, after = (getattr(model, layer)().weight.data for model in (old, policy))
        assert after.size(0) == max(rows, V + 2)
        assert torch.equal(after[:V], before[:V])
        assert torch.equal(after[V + 2 :], before[V + 2 :])
        z = (after[V : V + 2] - before[:V].mean(0)) / before[:V].std(0)
        # 2048 draws of a standard normal: mean within 4 / sqrt(2048), deviation within 4 / sqrt(2 * 2048)
        assert z.mean(1).abs().max() < 0.09
        assert (z.std(1) - 1).abs().max() < 0.0625
        assert torch.corrcoef(z)[0, 1].abs() < 0.09
    shared = policy.get_input_embeddings().weight is policy.get_output_embeddings().weight
    assert shared is tied


def test_rows_depend_on_the_seed_alone():
    (one, _), (same, _), (other, _) = conditioned(seed=3), conditioned(seed=3), conditioned(seed=4)
    first, again, another = (p.get_input_embeddings().weight[V:] for p in (one, same, other))
    assert torch.equal(first, again)
    assert not torch.equal(first, another)


def test_the_global_generator_is_left_alone():
    policy, tokenizer = tiny.policy(), tiny.tokenizer()
    add_control_tokens(tokenizer, [GOOD])
    state = torch.get_rng_state()
    give_rows(policy, tokenizer, known=V, seed=0)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_token_that_was_there_keeps_its_row_and_is_not_said_either():
    policy, tokenizer = tiny.policy(), tiny.tokenizer()
    before = policy.get_input_embeddings().weight.clone()
    add_control_tokens(tokenizer, ["w7"])
    give_rows(policy, tokenizer, known=V, seed=0)
    assert torch.equal(policy.get_input_embeddings().weight, before)
    assert unspoken_ids(policy) == [7]


def test_likelihoods_are_those_of_what_can_be_said():
    policy, _ = conditioned()
    stats = LanguageModel(policy)(collate(ROWS, tiny.PAD), with_entropy=True)
    for b, row in enumerate(ROWS):
        logits_LV = policy(torch.tensor([row.prompt + row.response])).logits[0, len(row.prompt) - 1 : -1]
        logprob_TV = logits_LV[:, :V].log_softmax(-1)  # the control tokens are the last two
        chosen_T = logprob_TV.gather(1, torch.tensor(row.response)[:, None])[:, 0]
        entropy_T = -(logprob_TV.exp() * logprob_TV).sum(-1)
        torch.testing.assert_close(stats.logprob_BT[b, : len(row.response)], chosen_T, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(stats.entropy_BT[b, : len(row.response)], entropy_T, rtol=1e-5, atol=1e-5)


def test_gradients_are_finite_and_reach_the_row_that_is_read():
    policy, _ = conditioned(tie_word_embeddings=False)
    stats = LanguageModel(policy)(collate(ROWS, tiny.PAD), with_entropy=True)
    (stats.logprob_BT.sum() + stats.entropy_BT.sum()).backward()
    assert all(torch.isfinite(p.grad).all() for p in policy.parameters())
    read, said = policy.get_input_embeddings().weight.grad, policy.get_output_embeddings().weight.grad
    assert read[V].any()
    assert not read[V + 1].any()
    assert not said[V:].any()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_folder_is_one_that_transformers_loads_and_generates_from(tmp_path, architecture):
    policy, tokenizer = conditioned(architecture=architecture, tie_word_embeddings=False)
    with torch.no_grad():  # the likeliest token everywhere
        weight = policy.get_output_embeddings().weight
        weight[V:] = 20 * weight[:V].abs().max()
    module = LanguageModel(policy)
    exporter(tokenizer)(module, {n: p.detach() for n, p in module.named_parameters()}, tmp_path)

    loaded, words = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.get_input_embeddings().num_embeddings == len(words) == V + 2
    assert words.convert_tokens_to_ids([GOOD, BAD]) == [V, V + 1]
    said = loaded.generate(
        torch.tensor([[V, 5, 6]] * 20), attention_mask=torch.ones(20, 3), max_new_tokens=20, do_sample=True
    )
    assert not (said[:, 1:] >= V).any()
    ours = load_policy(tmp_path)
    assert unspoken_ids(ours) == [V, V + 1]
    batch = collate(ROWS, tiny.PAD)
    torch.testing.assert_close(LanguageModel(ours)(batch).logprob_BT, module(batch).logprob_BT)
    assert load_tokenizer(tmp_path).get_vocab() == words.get_vocab()


def test_a_merged_adapter_brings_its_control_tokens(tmp_path):
    policy, tokenizer = conditioned()
    module = LanguageModel(policy)
    apply_lora(module, LoraSpec(rank=2, alpha=8.0, dropout=0.0, targets="all-linear"), seed=1)
    torch.manual_seed(7)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    batch = collate(ROWS, tiny.PAD)
    exporter(tokenizer)(module, {n: p.detach() for n, p in module.named_parameters()}, tmp_path)
    ours = LanguageModel(load_policy(tmp_path))(batch).logprob_BT
    torch.testing.assert_close(ours, module(batch).logprob_BT, rtol=1e-4, atol=1e-5)
