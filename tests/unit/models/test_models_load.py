import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, LlamaForSequenceClassification, T5Config

from alpacafarm.errors import ArtifactError
from alpacafarm.models import heads
from alpacafarm.models.load import build_policy, load_policy, load_reward, load_tokenizer, reward_from_policy
from alpacafarm.spec.model import ArchitectureSpec
from tests.unit.models import tiny


def save(
    path: Path, *, architecture: str = "llama", pad: str | None = "<pad>", size: int | None = None, **changes
) -> Path:
    policy = tiny.policy(architecture, **changes)
    policy.save_pretrained(path)
    tiny.tokenizer(size=size or tiny.VOCABULARY, pad=pad).save_pretrained(path)
    return path


def logits(policy, ids=(3, 9, 7)) -> torch.Tensor:
    with torch.no_grad():
        return policy(torch.tensor([ids])).logits


def test_a_policy_is_what_was_saved(tmp_path):
    save(tmp_path)
    torch.testing.assert_close(logits(load_policy(tmp_path)), logits(tiny.policy()))


@pytest.mark.parametrize("pad", [None, "</s>"])
@pytest.mark.parametrize("tied", [False, True])
def test_a_missing_or_shared_pad_token_becomes_one_of_its_own_with_a_mean_row(tmp_path, pad, tied):
    save(tmp_path, pad=pad, tie_word_embeddings=tied, pad_token_id=None)
    tokenizer, policy = load_tokenizer(tmp_path), load_policy(tmp_path)
    assert tokenizer.pad_token_id == tiny.VOCABULARY
    assert policy.config.pad_token_id == policy.generation_config.pad_token_id == tiny.VOCABULARY
    old = tiny.policy(tie_word_embeddings=tied, pad_token_id=None)
    for new, before in (
        (policy.get_input_embeddings(), old.get_input_embeddings()),
        (policy.get_output_embeddings(), old.get_output_embeddings()),
    ):
        torch.testing.assert_close(new.weight[:-1], before.weight)
        torch.testing.assert_close(new.weight[-1], before.weight.mean(0))
    torch.testing.assert_close(logits(policy)[..., :-1], logits(old))


def test_spare_rows_are_used_before_rows_are_added(tmp_path):
    save(tmp_path, pad=None, size=tiny.VOCABULARY - 4, pad_token_id=None)
    assert load_tokenizer(tmp_path).pad_token_id == tiny.VOCABULARY - 4
    assert load_policy(tmp_path).get_input_embeddings().num_embeddings == tiny.VOCABULARY


def test_a_saved_policy_keeps_its_pad_token(tmp_path):
    save(tmp_path / "a", pad=None, pad_token_id=None)
    load_policy(tmp_path / "a").save_pretrained(tmp_path / "b")
    load_tokenizer(tmp_path / "a").save_pretrained(tmp_path / "b")
    assert load_tokenizer(tmp_path / "b").pad_token_id == tiny.VOCABULARY
    torch.testing.assert_close(logits(load_policy(tmp_path / "b")), logits(load_policy(tmp_path / "a")))


def test_sampling_settings_that_came_with_the_weights_are_dropped(tmp_path):
    save(tmp_path)
    settings = {"do_sample": True, "top_p": 0.5, "repetition_penalty": 1.3, "eos_token_id": [5, 6]}
    (tmp_path / "generation_config.json").write_text(json.dumps(settings))
    generation = load_policy(tmp_path).generation_config
    assert generation.eos_token_id == tiny.EOS
    assert (generation.top_p, generation.repetition_penalty) in [(None, None), (1.0, 1.0)]


def test_dropout_is_off_in_training_too(tmp_path):
    rates = {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5}
    save(tmp_path, architecture="gpt2", **rates)
    policy = load_policy(tmp_path)
    still = logits(policy)
    torch.testing.assert_close(logits(policy.train()), still)


def test_dtype_is_the_one_asked_for(tmp_path):
    assert load_policy(save(tmp_path), dtype="bfloat16").dtype == torch.bfloat16


def test_a_tokenizer_without_an_end_is_refused(tmp_path):
    tiny.policy().save_pretrained(tmp_path)
    tiny.tokenizer(eos=None).save_pretrained(tmp_path)
    for load in (load_tokenizer, load_policy):
        with pytest.raises(ArtifactError, match=r"model\.path=.*no eos token.*set eos_token"):
            load(tmp_path)


def test_an_encoder_decoder_is_refused(tmp_path):
    T5Config(d_model=8, d_ff=8, num_layers=1, num_heads=1, vocab_size=40).save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"encoder-decoder \(t5\); a policy must be a decoder-only"):
        load_policy(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(
        ArtifactError, match=r"model\.path=.*no model can be loaded.*give a Hugging Face folder"
    ):
        load_policy(tmp_path)


def test_pickled_weights_are_refused(tmp_path):
    save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tiny.policy().state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ArtifactError, match="safetensors"):
        load_policy(tmp_path)


def test_an_architecture_that_changes_its_logits_in_an_unknown_way_is_refused(tmp_path, monkeypatch):
    save(tmp_path)

    def ours(policy):
        return lambda hidden: policy.lm_head(hidden) * 1.1

    monkeypatch.setattr(heads, "logits_function", ours)
    with pytest.raises(ArtifactError, match="transforms its logits in a way that is not known"):
        load_policy(tmp_path)


def test_a_reward_model_has_the_policys_backbone_and_a_head_from_the_seed(tmp_path):
    save(tmp_path)
    state = torch.get_rng_state()
    reward = reward_from_policy(tmp_path, 3)
    assert torch.equal(torch.get_rng_state(), state), "the global generator is left alone"
    policy = load_policy(tmp_path)
    for name, weight in policy.base_model.state_dict().items():
        torch.testing.assert_close(reward.base_model.state_dict()[name], weight)
    assert torch.equal(reward.score.weight, reward_from_policy(tmp_path, 3).score.weight)
    assert not torch.equal(reward.score.weight, reward_from_policy(tmp_path, 4).score.weight)
    assert 0.5 < float(reward.score.weight.detach().std()) * 17**0.5 < 1.5  # 1 / sqrt(H + 1), H = 16
    assert (reward.config.num_labels, reward.config.problem_type) == (1, "regression")
    assert reward.config.pad_token_id == tiny.PAD


def test_a_saved_reward_model_is_loaded_and_a_policy_is_not_one(tmp_path):
    save(tmp_path / "policy")
    reward = reward_from_policy(tmp_path / "policy", 3)
    reward.save_pretrained(tmp_path / "reward")
    tiny.tokenizer().save_pretrained(tmp_path / "reward")
    assert torch.equal(load_reward(tmp_path / "reward").score.weight, reward.score.weight)
    with pytest.raises(
        ArtifactError, match=r"lacks weights of LlamaForSequenceClassification: score\.weight"
    ):
        load_reward(tmp_path / "policy")


def test_a_classifier_with_several_labels_is_no_reward_model(tmp_path):
    torch.manual_seed(0)
    LlamaForSequenceClassification(tiny.config(num_labels=3)).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ArtifactError, match=r"3 labels instead of 1; give a sequence classifier"):
        load_reward(tmp_path)


def test_a_folder_that_lacks_weights_is_refused(tmp_path):
    save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"lacks weights of .*up_proj\.weight \(1 in all\)"):
        load_policy(tmp_path)


def test_a_damaged_weights_file_is_refused(tmp_path):
    save(tmp_path)
    whole = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-10])
    with pytest.raises(ArtifactError, match="no model can be loaded"):
        load_policy(tmp_path)


ARCHITECTURE = ArchitectureSpec(
    vocab_size=300, hidden_size=16, layers=2, heads=2, ff_size=24, max_positions=32, tie_embeddings=True
)


def test_a_built_policy_depends_on_its_seed_alone_and_has_a_row_for_each_token():
    state = torch.get_rng_state()
    first = build_policy(ARCHITECTURE, tiny.tokenizer(), 1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert torch.equal(logits(first), logits(build_policy(ARCHITECTURE, tiny.tokenizer(), 1)))
    assert not torch.equal(logits(first), logits(build_policy(ARCHITECTURE, tiny.tokenizer(), 2)))
    assert first.get_input_embeddings().num_embeddings == tiny.VOCABULARY
    assert first.config.eos_token_id == tiny.EOS
    assert first.get_input_embeddings().weight is first.get_output_embeddings().weight


def test_a_built_policy_survives_its_folder(tmp_path):
    policy = build_policy(ARCHITECTURE, tiny.tokenizer(), 1)
    policy.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    assert AutoConfig.from_pretrained(tmp_path).pad_token_id == tiny.PAD
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(policy))
    torch.testing.assert_close(logits(load_policy(tmp_path)), logits(policy))
