"""The memory that a plan states, against models that are really built."""

from pathlib import Path

import pytest

from alpacafarm.models.load import build_policy
from alpacafarm.pipeline.memory import parameter_count, state_bytes, tensor_elements
from alpacafarm.spec.model import ArchitectureSpec, ModelSpec
from alpacafarm.text.train_tokenizer import train_tokenizer


def model(tie: bool) -> ModelSpec:
    architecture = ArchitectureSpec(
        vocab_size=300, hidden_size=24, layers=2, heads=3, ff_size=40, max_positions=64, tie_embeddings=tie
    )
    return ModelSpec(
        name="m",
        path=None,
        revision=None,
        architecture=architecture,
        dtype="float32",
        prompt="short",
        max_prompt_tokens=32,
        max_response_tokens=32,
        lora=None,
    )


@pytest.mark.parametrize("tie", [True, False])
def test_parameters_are_counted_as_transformers_has_them(tie: bool, tmp_path: Path):
    spec = model(tie)
    assert spec.architecture is not None
    texts = (f"{a}{b}{c}" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyz")
    tokenizer = train_tokenizer(texts, 300)
    assert len(tokenizer) == 300
    policy = build_policy(spec.architecture, tokenizer, seed=0)
    policy.save_pretrained(str(tmp_path))
    counted = sum(p.numel() for p in policy.parameters())
    assert parameter_count(spec) == counted
    assert tensor_elements(tmp_path / "model.safetensors") == counted
    by_path = spec.model_copy(update={"architecture": None, "path": str(tmp_path)})
    assert parameter_count(by_path) == counted


def test_states_are_sixteen_bytes_a_parameter_and_shrink_with_each_stage():
    sizes = [state_bytes(1000, dtype="bfloat16", stage=stage, world=4) for stage in range(4)]
    assert sizes == [16_000, 7_000, 5_500, 4_000]
    assert state_bytes(1000, dtype="float32", stage=0, world=1) == 16_000


def test_frozen_models_take_their_weights_only():
    both = state_bytes(1000, dtype="bfloat16", stage=2, world=1, trained=1, frozen=2)
    assert both - state_bytes(1000, dtype="bfloat16", stage=2, world=1) == 4_000


def test_a_hub_id_is_not_looked_up():
    spec = model(True).model_copy(update={"architecture": None, "path": "owner/name"})
    assert parameter_count(spec) is None
