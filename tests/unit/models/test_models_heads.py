import pytest
import torch
from transformers import AutoModelForSequenceClassification

from alpacafarm.models import heads
from alpacafarm.models.heads import ActorCritic, AnchoredModel, LanguageModel, RewardModel
from alpacafarm.text.collate import Tokens, collate
from tests.unit.models import tiny

ARCHITECTURES = sorted(tiny.SHAPE)


def plain_logprobs(policy, row: Tokens, temperature: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """log p and entropy of each response token from the model's own logits, one row, no padding."""
    ids = torch.tensor([row.prompt + row.response])
    logits_LV = policy(input_ids=ids).logits[0] / temperature
    logprob_LV = logits_LV[len(row.prompt) - 1 : -1].log_softmax(-1)
    chosen = logprob_LV.gather(1, torch.tensor(row.response)[:, None]).squeeze(1)
    return chosen, -(logprob_LV.exp() * logprob_LV).sum(-1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_log_probabilities_and_entropies_are_those_of_the_models_own_logits(architecture, temperature):
    policy = tiny.policy(architecture)
    rows = tiny.rows(5)
    stats = LanguageModel(policy)(collate(rows, tiny.PAD), temperature=temperature, with_entropy=True)
    for b, row in enumerate(rows):
        logprob_T, entropy_T = plain_logprobs(policy, row, temperature)
        torch.testing.assert_close(stats.logprob_BT[b, : len(row.response)], logprob_T, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(stats.entropy_BT[b, : len(row.response)], entropy_T, rtol=1e-5, atol=1e-5)
        assert not stats.logprob_BT[b, len(row.response) :].any()
        assert not stats.entropy_BT[b, len(row.response) :].any()


def test_entropy_is_left_out_unless_asked_for():
    assert LanguageModel(tiny.policy())(collate(tiny.rows(2), tiny.PAD)).entropy_BT is None


def test_chunks_change_neither_values_nor_gradients(monkeypatch):
    batch = collate(tiny.rows(6), tiny.PAD)
    found = []
    for elements in (2**25, 3 * tiny.VOCABULARY):
        monkeypatch.setattr(heads, "CHUNK_ELEMENTS", elements)
        module = LanguageModel(tiny.policy())
        stats = module(batch, with_entropy=True)
        (stats.logprob_BT.sum() + stats.entropy_BT.sum()).backward()
        found.append((stats.logprob_BT.detach(), [p.grad for p in module.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def test_a_batch_without_response_tokens_still_has_a_graph():
    module = LanguageModel(tiny.policy())
    stats = module(collate([Tokens(prompt=(3, 4), response=())], tiny.PAD), with_entropy=True)
    (stats.logprob_BT.sum() + stats.entropy_BT.sum()).backward()
    assert stats.logprob_BT.shape == (1, 1)
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())


def anchored() -> AnchoredModel:
    return AnchoredModel(tiny.policy(seed=0), tiny.policy(seed=1))


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_kl_to_the_anchor_is_that_of_the_models_own_logits(temperature):
    """The anchor reads another prompt, as where a control token stands before the policy's."""
    module = anchored()
    rows = tiny.rows(5)
    plain = [Tokens(row.prompt[1:] or (2,), row.response) for row in rows]
    stats = module(collate(rows, tiny.PAD), collate(plain, tiny.PAD), temperature=temperature)
    for b, (row, other) in enumerate(zip(rows, plain, strict=True)):
        logprob_TV, anchor_TV = (
            model(torch.tensor([read.prompt + read.response])).logits[0, len(read.prompt) - 1 : -1]
            for model, read in ((module.policy, row), (module.reference, other))
        )
        logprob_TV, anchor_TV = ((x / temperature).log_softmax(-1) for x in (logprob_TV, anchor_TV))
        expected_T = (logprob_TV.exp() * (logprob_TV - anchor_TV)).sum(-1)
        kl_T = stats.kl_BT[b]
        torch.testing.assert_close(kl_T[: len(row.response)], expected_T, rtol=1e-5, atol=1e-5)
        assert not kl_T[len(row.response) :].any()
    own = LanguageModel(module.policy)(collate(rows, tiny.PAD), temperature=temperature, with_entropy=True)
    torch.testing.assert_close(stats.logprob_BT, own.logprob_BT)
    torch.testing.assert_close(stats.entropy_BT, own.entropy_BT)


def test_the_kl_to_a_copy_is_zero_and_flat():
    module = AnchoredModel(tiny.policy(), tiny.policy())
    batch = collate(tiny.rows(5), tiny.PAD)
    kl = module(batch, batch).kl_BT
    kl.sum().backward()
    torch.testing.assert_close(kl, torch.zeros_like(kl), rtol=0, atol=1e-6)
    for parameter in module.policy.parameters():  # a minimum
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter), rtol=0, atol=1e-5)


def test_an_anchored_model_is_the_same_in_chunks_and_its_anchor_is_not_trained(monkeypatch):
    batch = collate(tiny.rows(6), tiny.PAD)
    found = []
    for elements in (2**25, 3 * tiny.VOCABULARY):
        monkeypatch.setattr(heads, "CHUNK_ELEMENTS", elements)
        module = anchored()
        stats = module(batch, batch)
        (stats.logprob_BT.sum() + stats.entropy_BT.sum() + stats.kl_BT.sum()).backward()
        assert all(p.grad is None for p in module.reference.parameters())
        found.append((stats.kl_BT.detach(), [p.grad for p in module.policy.parameters()]))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


def reward(architecture: str = "llama"):
    torch.manual_seed(0)
    return AutoModelForSequenceClassification.from_config(tiny.config(architecture, num_labels=1)).eval()


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gpt2"])
def test_scores_are_the_classifiers_own_whatever_the_padding(architecture):
    model = reward(architecture)
    rows = tiny.rows(6)
    batch = collate(rows, tiny.PAD)
    scores = RewardModel(model)(batch)
    theirs = model(input_ids=batch.input_ids_BL, attention_mask=batch.attention_BL).logits[:, 0]
    torch.testing.assert_close(scores, theirs, rtol=1e-5, atol=1e-5)
    alone = torch.cat([RewardModel(model)(collate([row], tiny.PAD)) for row in rows])
    torch.testing.assert_close(scores, alone, rtol=1e-5, atol=1e-5)


def test_scores_are_float32_in_a_bfloat16_model():
    scores = RewardModel(reward().to(torch.bfloat16))(collate(tiny.rows(4), tiny.PAD))
    assert scores.dtype == torch.float32
    assert not torch.equal(scores, scores.bfloat16().float())


def test_the_critic_starts_at_zero_and_the_actor_as_the_policy():
    policy = tiny.policy()
    batch = collate(tiny.rows(4), tiny.PAD)
    stats = ActorCritic(policy, reward())(batch, with_entropy=True)
    assert not stats.value_BT.any()
    expected = LanguageModel(policy)(batch, with_entropy=True)
    torch.testing.assert_close(stats.logprob_BT, expected.logprob_BT)
    torch.testing.assert_close(stats.entropy_BT, expected.entropy_BT)


def test_values_come_before_their_token():
    """V of token t is read at position start + t - 1, so no later token can change it."""
    module = ActorCritic(tiny.policy(), reward())
    torch.nn.init.normal_(module.value.score.weight)
    row = Tokens(prompt=(3, 4, 5), response=(6, 7, 8, 9))
    value_T = module(collate([row], tiny.PAD)).value_BT[0]
    hidden_LH = module.value.base_model(torch.tensor([row.prompt + row.response])).last_hidden_state[0]
    torch.testing.assert_close(value_T, (hidden_LH @ module.value.score.weight[0])[2:6])
    other = Tokens(prompt=row.prompt, response=(6, 7, 11, 12))
    changed_T = module(collate([other], tiny.PAD)).value_BT[0]
    torch.testing.assert_close(value_T[:3], changed_T[:3])
    assert not torch.isclose(value_T[3], changed_T[3])
