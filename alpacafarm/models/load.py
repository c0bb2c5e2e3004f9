"""Policies, reward models and tokenizers from Hugging Face folders or hub ids, or from nothing.

Two things hold for everything that is loaded. Padding has a token of its own, neither the end nor the unknown
token, so that "real" and "end" can be told apart by id alone. Dropout is off, in training too: a policy's
log-probabilities must be the ones it sampled with, or the first PPO ratio is not 1 and DPO's reference
differs from its start.
"""

from __future__ import annotations

import math
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpacafarm.errors import ArtifactError
from alpacafarm.spec.model import ArchitectureSpec
from alpacafarm.text.control import control_ids

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

PAD_TOKEN = "[PAD]"
FRESH_HEAD = {"num_labels": 1, "problem_type": "regression"}  # of a classifier made from a policy
DROPOUT_FIELD = re.compile(r"dropout|pdrop$|^drop_rate$")


def load_tokenizer(path: str | Path, *, revision: str | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer with a pad token of its own, which may be one more than the model has rows for."""
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(str(path), revision=revision)
    except (OSError, ValueError) as error:
        raise ArtifactError(f"model.path={path}: no tokenizer can be loaded: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ArtifactError(
            f"model.path={path}: the tokenizer has no eos token, so responses could not end; "
            "set eos_token in its tokenizer_config.json or choose another model"
        )
    shared = {tokenizer.eos_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id}
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id in shared:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    return tokenizer


def load_config(path: str | Path, *, revision: str | None = None) -> PreTrainedConfig:
    """The model's config; of an adapter's folder, which has none, that of the base it names."""
    from transformers import AutoConfig

    if is_adapter(path):
        from peft import PeftConfig

        adapter = PeftConfig.from_pretrained(str(path))
        return load_config(adapter.base_model_name_or_path, revision=adapter.revision)
    config: PreTrainedConfig = AutoConfig.from_pretrained(str(path), revision=revision)
    return config


def is_adapter(path: str | Path) -> bool:
    """Whether the folder holds adapters for a base elsewhere."""
    return (Path(path) / "adapter_config.json").is_file()


def load_policy(path: str | Path, *, revision: str | None = None, dtype: str = "float32") -> PreTrainedModel:
    """A causal language model in eval mode. An adapter's folder gives its base with the adapter merged."""
    from transformers import AutoModelForCausalLM

    policy = _load(AutoModelForCausalLM, path, revision, dtype)
    _check_logits(policy, path)
    return policy


def load_reward(path: str | Path, *, revision: str | None = None, dtype: str = "float32") -> PreTrainedModel:
    """A reward model: a sequence classifier with one label, in eval mode."""
    from transformers import AutoModelForSequenceClassification

    reward = _load(AutoModelForSequenceClassification, path, revision, dtype)
    if reward.config.num_labels != 1:
        raise ArtifactError(
            f"{path} holds no reward model: {reward.config.num_labels} labels instead of 1; "
            "give a sequence classifier with one label"
        )
    return _one_label(reward, path)


def reward_from_policy(
    path: str | Path, seed: int, *, revision: str | None = None, dtype: str = "float32"
) -> PreTrainedModel:
    """A reward model on a policy's backbone.

    The head is normal with standard deviation 1 / sqrt(H + 1) (Stiennon et al. 2020, appendix B;
    arXiv:2009.01325) and drawn from `seed`.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    reward = _load(AutoModelForSequenceClassification, path, revision, dtype, **FRESH_HEAD)
    head = _one_label(reward, path).score.weight
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(head.shape, generator=generator) / math.sqrt(head.size(1) + 1)
    head.data.copy_(drawn)
    return reward


def build_policy(
    architecture: ArchitectureSpec, tokenizer: PreTrainedTokenizerBase, seed: int
) -> PreTrainedModel:
    """A Llama with random weights, in float32. It has a row for each token of the tokenizer and no more."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.ff_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        max_position_embeddings=architecture.max_positions,
        tie_word_embeddings=architecture.tie_embeddings,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = LlamaForCausalLM(config)
    _fit_to_tokenizer(policy, tokenizer)
    policy.eval()
    return policy


def _load(auto: Any, path: str | Path, revision: str | None, dtype: str, **settings: Any) -> PreTrainedModel:
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig

    if is_adapter(path):
        return _load_adapter(auto, Path(path), dtype, **settings)
    try:
        config = AutoConfig.from_pretrained(str(path), revision=revision, **settings)
        _check_decoder_only(config, path)
        _no_dropout(config)
        model: PreTrainedModel
        with torch.random.fork_rng(devices=[]):  # a head that the folder lacks is drawn here
            model, report = auto.from_pretrained(
                str(path),
                revision=revision,
                config=config,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, SafetensorError) as error:
        raise ArtifactError(
            f"model.path={path}: no model can be loaded as {auto.__name__}: {error}; "
            "give a Hugging Face folder or hub id with safetensors weights"
        ) from error
    missing = set(report["missing_keys"]) - ({"score.weight"} if settings else set())
    if missing:  # transformers fills them with random numbers
        raise ArtifactError(
            f"{path} lacks weights of {type(model).__name__}: {', '.join(sorted(missing)[:3])} "
            f"({len(missing)} in all); give a complete folder of the right kind (policy or reward model)"
        )
    _fit_to_tokenizer(model, load_tokenizer(path, revision=revision))
    model.eval()
    return model


def _load_adapter(auto: Any, path: Path, dtype: str, **settings: Any) -> PreTrainedModel:
    """Onto the base that the adapter names, which may be an adapter's folder in turn."""
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(path))
    if config.task_type == "SEQ_CLS":
        settings = FRESH_HEAD  # the adapter brings the head that its base lacks
    config.task_type = None  # a policy's adapter also fits the backbone of a classifier
    base = _load(auto, config.base_model_name_or_path, config.revision, dtype, **settings)
    merged: PreTrainedModel
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")  # it would stay the base alone
        try:
            merged = PeftModel.from_pretrained(base, str(path), config=config).merge_and_unload()
        except UserWarning as error:
            raise ArtifactError(
                f"{path}: the adapter does not fit its base {config.base_model_name_or_path}: "
                f"{str(error)[:200]}; give the base that it was trained on as base_model_name_or_path"
            ) from None
    merged.config.name_or_path = str(path)
    _fit_to_tokenizer(merged, load_tokenizer(path))  # which may end answers in its own way
    merged.eval()
    return merged


def _fit_to_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Rows for new tokens, each the mean of the old ones, and the tokenizer's special ids.

    A random row would change what the model says as soon as the softmax runs over it.
    """
    import torch

    old = model.get_input_embeddings().weight.size(0)
    if len(tokenizer) > old:
        with torch.random.fork_rng(devices=[]):
            model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        for embeddings in (model.get_input_embeddings(), model.get_output_embeddings()):
            if embeddings is not None:
                rows = embeddings.weight.data
                rows[old:] = rows[:old].mean(0, keepdim=True)
    set_special_ids(model, tokenizer)


def set_special_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """The tokenizer's start, end and padding token, and its control tokens as tokens never to be generated.

    Sampling settings that came with the weights (top_p, repetition_penalty) are dropped: only the run's own
    apply.
    """
    from transformers import GenerationConfig

    ids = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    model.config.update(ids)
    if model.can_generate():
        model.generation_config = GenerationConfig(**ids, suppress_tokens=control_ids(tokenizer) or None)


def _check_decoder_only(config: PreTrainedConfig, path: str | Path) -> None:
    if config.is_encoder_decoder:
        raise ArtifactError(
            f"model.path={path} is an encoder-decoder ({config.model_type}); "
            "a policy must be a decoder-only causal language model, such as Llama or Qwen"
        )


def _no_dropout(config: PreTrainedConfig) -> None:
    for name, value in config.to_dict().items():
        if DROPOUT_FIELD.search(name) and isinstance(value, float):
            setattr(config, name, 0.0)


def _one_label(reward: PreTrainedModel, path: str | Path) -> PreTrainedModel:
    from torch import nn

    if not isinstance(getattr(reward, "score", None), nn.Linear):
        raise ArtifactError(
            f"{path}: {type(reward).__name__} has no linear `score` head and cannot be a reward model here; "
            "choose a decoder-only architecture, such as Llama or Qwen"
        )
    return reward


def _check_logits(policy: PreTrainedModel, path: str | Path) -> None:
    """Refuses architectures that do something to their logits that `logits_function` does not know."""
    import torch

    from alpacafarm.models.heads import logits_function

    ids = torch.arange(1, 5).unsqueeze(0) % policy.config.get_text_config().vocab_size
    with torch.no_grad():
        theirs = policy(input_ids=ids, use_cache=False).logits.float()
        ours = logits_function(policy)(
            policy.base_model(input_ids=ids, use_cache=False).last_hidden_state
        ).float()
    if not torch.allclose(theirs, ours, rtol=0.02, atol=0.02):  # bfloat16 rounds at 2**-8
        raise ArtifactError(
            f"model.path={path}: {type(policy).__name__} transforms its logits in a way that is not "
            "known here, so log-probabilities would be wrong; choose another architecture, "
            "or extend alpacafarm/models/heads.py"
        )
