from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from alpacafarm.errors import ArtifactError, SpecError
from alpacafarm.models.export import _save_adapter, export_policy, export_reward, exporter
from alpacafarm.models.heads import ActorCritic, LanguageModel, RewardModel
from alpacafarm.models.load import load_policy, load_reward, reward_from_policy
from alpacafarm.models.lora import apply_lora, has_lora
from alpacafarm.spec.model import LoraSpec
from alpacafarm.text.collate import collate
from tests.unit.models import tiny

BATCH = collate(tiny.rows(5), tiny.PAD)


def lora(**changes) -> LoraSpec:
    return LoraSpec(**{"rank": 2, "alpha": 8.0, "dropout": 0.0, "targets": "all-linear", **changes})


def base(path: Path, architecture: str = "llama", **changes) -> Path:
    tiny.policy(architecture, **changes).save_pretrained(path)
    tiny.tokenizer().save_pretrained(path)
    return path


def disturb(module) -> None:
    """Adapters start as the identity; give the trainable weights something to say."""
    torch.manual_seed(7)
    for parameter in module.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))


def state(module) -> dict[str, torch.Tensor]:
    """As an engine gathers it: tied weights once."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_adapters_start_as_the_identity_and_alone_are_trained(architecture):
    module = LanguageModel(tiny.policy(architecture))
    before = module(BATCH).logprob_BT
    random = torch.get_rng_state()
    apply_lora(module, lora(), seed=1)
    assert torch.equal(torch.get_rng_state(), random)
    torch.testing.assert_close(module(BATCH).logprob_BT, before)
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_merged_and_adapter_folders_speak_as_the_adapted_module(tmp_path, architecture, kind):
    path = base(tmp_path / "base", architecture)
    module = LanguageModel(load_policy(path))
    apply_lora(module, lora(), seed=1)
    disturb(module)
    export_policy(module, state(module), tmp_path / "out", tiny.tokenizer(), lora=kind)
    expected = module(BATCH).logprob_BT
    assert not torch.allclose(expected, LanguageModel(load_policy(path))(BATCH).logprob_BT, atol=1e-2)
    auto = AutoModelForCausalLM if kind == "merged" else AutoPeftModelForCausalLM
    theirs = auto.from_pretrained(tmp_path / "out").eval()
    theirs = theirs if kind == "merged" else theirs.merge_and_unload()
    for policy in (load_policy(tmp_path / "out"), theirs):
        torch.testing.assert_close(LanguageModel(policy)(BATCH).logprob_BT, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_a_reward_models_head_is_trained_whole_and_travels(tmp_path, kind):
    module = RewardModel(reward_from_policy(base(tmp_path / "base"), 3))
    apply_lora(module, lora(), seed=1)
    assert module.reward.score.weight.requires_grad
    disturb(module)
    export_reward(module, state(module), tmp_path / "out", tiny.tokenizer(), lora=kind)
    loaded = RewardModel(load_reward(tmp_path / "out"))
    torch.testing.assert_close(loaded(BATCH), module(BATCH), rtol=1e-4, atol=1e-5)
    if kind == "merged":
        theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
        torch.testing.assert_close(RewardModel(theirs)(BATCH), module(BATCH), rtol=1e-4, atol=1e-5)


def adapted(path: Path, out: Path, tokenizer=None) -> LanguageModel:
    """What was trained on the folder `path`, and left in `out` with `lora.export=adapter`."""
    module = LanguageModel(load_policy(path))
    apply_lora(module, lora(), seed=1)
    disturb(module)
    exporter(tokenizer or tiny.tokenizer(), lora="adapter")(module, state(module), out)
    return module


def test_an_adapter_on_an_adapter_is_followed_to_its_base(tmp_path):
    path = base(tmp_path / "base")
    first, second = tmp_path / "first", tmp_path / "second"
    adapted(path, first)
    module = LanguageModel(load_policy(first))
    apply_lora(module, lora(), seed=1)
    disturb(module)
    tiny.tokenizer().save_pretrained(second)
    _save_adapter(module.policy, state(module.policy), second)
    torch.testing.assert_close(
        LanguageModel(load_policy(second))(BATCH).logprob_BT, module(BATCH).logprob_BT, rtol=1e-4, atol=1e-5
    )


def test_what_is_trained_on_an_adapter_is_a_model_that_transformers_can_load(tmp_path):
    adapted(base(tmp_path / "base"), tmp_path / "first")
    assert not (tmp_path / "first" / "config.json").exists()
    module = adapted(tmp_path / "first", tmp_path / "second")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "second").eval()
    torch.testing.assert_close(
        LanguageModel(theirs)(BATCH).logprob_BT, module(BATCH).logprob_BT, rtol=1e-4, atol=1e-5
    )


def test_an_adapter_whose_weights_have_other_names_is_refused(tmp_path):
    out = tmp_path / "out"
    adapted(base(tmp_path / "base"), out)
    file = out / "adapter_model.safetensors"
    renamed = {name.replace(".layers.", ".blocks."): value for name, value in load_file(file).items()}
    save_file(renamed, file)
    with pytest.raises(
        ArtifactError, match=r"/out: the adapter does not fit its base .*/base: .*missing adapter"
    ):
        load_policy(out)


def test_an_adapter_ends_answers_as_its_own_tokenizer_does(tmp_path):
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"eos_token": "<|im_end|>"})
    adapted(base(tmp_path / "base"), tmp_path / "out", tokenizer)
    policy = load_policy(tmp_path / "out")
    assert tokenizer.eos_token_id != tiny.tokenizer().eos_token_id
    assert policy.config.eos_token_id == policy.generation_config.eos_token_id == tokenizer.eos_token_id
    assert policy.get_input_embeddings().weight.size(0) >= len(tokenizer)


@pytest.mark.parametrize("tied", [False, True])
def test_a_plain_export_of_an_actor_critic_is_its_policy(tmp_path, tied):
    path = base(tmp_path / "base", tie_word_embeddings=tied)
    module = ActorCritic(load_policy(path), reward_from_policy(path, 3))
    disturb(module)
    assert not has_lora(module)
    exporter(tiny.tokenizer())(module, state(module), tmp_path / "out")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    torch.testing.assert_close(LanguageModel(theirs)(BATCH).logprob_BT, module(BATCH).logprob_BT)
    with safe_open(tmp_path / "out" / "model.safetensors", "pt") as file:
        names = set(file.keys())
    assert ("lm_head.weight" in names) is not tied
    assert not any(name.startswith(("value", "policy")) for name in names)


def test_targets_that_are_embeddings_are_refused():
    for target in ("lm_head", "embed_tokens"):
        with pytest.raises(
            SpecError, match=rf"model\.lora\.targets=\['{target}'\].*set model\.lora\.targets=all-linear"
        ):
            apply_lora(LanguageModel(tiny.policy()), lora(targets=[target]), seed=0)


def test_targets_that_do_not_exist_are_refused():
    with pytest.raises(SpecError, match=r"model\.lora\.targets=\['query'\].*LlamaForCausalLM.*q_proj"):
        apply_lora(LanguageModel(tiny.policy()), lora(targets=["query"]), seed=0)
