import pytest

from alpacafarm.engine.zero import deepspeed_config, refusals
from alpacafarm.spec.cluster import ClusterSpec, OffloadSpec, ZeroSpec
from alpacafarm.spec.model import ModelSpec


def zero(stage="auto", optimizer="none", parameters="none", nvme_path=None) -> ZeroSpec:
    offload = OffloadSpec(optimizer=optimizer, parameters=parameters, nvme_path=nvme_path)
    return ZeroSpec(stage=stage, offload=offload, persistence_threshold=100_000)


def cluster(zero: ZeroSpec, engine="deepspeed") -> ClusterSpec:
    return ClusterSpec(
        name="test",
        launcher="launchers.inline:Inline",
        engine=engine,
        processes=1,
        micro_batch=2,
        generation_batch=2,
        threads=1,
        gradient_checkpointing=False,
        checkpoint_every_s=60,
        rendezvous_timeout_s=60,
        zero=zero,
    )


def model(dtype: str) -> ModelSpec:
    return ModelSpec(
        name="path",
        path="somewhere",
        revision=None,
        architecture=None,
        dtype=dtype,
        prompt="alpaca",
        max_prompt_tokens=32,
        max_response_tokens=32,
        lora=None,
    )


def test_the_dict_for_stage_3_in_bfloat16_with_everything_offloaded():
    spec = zero(3, optimizer="cpu", parameters="nvme", nvme_path="/local")
    config = deepspeed_config(spec, stage=3, micro_batch=4, dtype="bfloat16", max_grad_norm=1.0)
    assert config == {
        "train_micro_batch_size_per_gpu": 4,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": 1.0,
        "zero_optimization": {
            "stage": 3,
            "stage3_param_persistence_threshold": 100_000,
            "offload_optimizer": {"device": "cpu"},
            "offload_param": {"device": "nvme", "nvme_path": "/local"},
        },
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": 1_000_000_000,
        "bf16": {"enabled": True},
        "data_types": {"grad_accum_dtype": "fp32"},
    }


def test_the_dict_for_stage_0_leaves_clipping_to_the_engine():
    config = deepspeed_config(zero(0), stage=0, micro_batch=1, dtype="float32", max_grad_norm=1.0)
    assert config["gradient_clipping"] == 0.0
    assert config["zero_optimization"] == {"stage": 0}
    assert "bf16" not in config


@pytest.mark.parametrize(
    ("spec", "dtype", "world", "messages"),
    [
        (
            zero(0),
            "bfloat16",
            1,
            [r"cluster\.zero\.stage=0 with model\.dtype=bfloat16 .* set cluster\.zero\.stage to"],
        ),
        (
            zero(2, optimizer="nvme", nvme_path="/d"),
            "float32",
            1,
            [r"optimizer=nvme needs stage 3 and the stage is 2"],
        ),
        (zero(0), "float32", 1, []),
        (zero("auto"), "bfloat16", 1, []),
        (zero("auto"), "float32", 2, []),
        (zero(3, parameters="cpu"), "bfloat16", 2, []),
    ],
)
def test_refusals_name_the_knob_and_a_way_out(spec, dtype, world, messages):
    found = refusals(cluster(spec), model(dtype), world)
    assert len(found) == len(messages)
    for text, pattern in zip(found, messages, strict=True):
        with pytest.raises(AssertionError, match=pattern):
            raise AssertionError(text)


def test_the_plain_engine_refuses_to_shard():
    (message,) = refusals(cluster(zero(2), engine="plain"), model("float32"), 1)
    assert "cluster.zero.stage=2 needs cluster.engine=deepspeed" in message
    assert refusals(cluster(zero("auto"), engine="plain"), model("bfloat16"), 2) == []


def test_what_the_spec_itself_lets_through_by_copying_is_refused_too():
    """`model_copy` skips validation; so does a stage chosen by `auto`."""
    offload = OffloadSpec(optimizer="cpu", parameters="none", nvme_path=None)
    spec = zero("auto").model_copy(update={"offload": offload, "stage": 0})
    (message,) = refusals(cluster(zero()).model_copy(update={"zero": spec}), model("float32"), 1)
    assert "offload.optimizer=cpu needs stage 1, 2 or 3" in message
    spec = zero(2).model_copy(update={"offload": offload.model_copy(update={"parameters": "nvme"})})
    found = refusals(cluster(zero()).model_copy(update={"zero": spec}), model("float32"), 1)
    assert any("parameters=nvme needs stage 3" in text for text in found)
    assert any("nvme_path=null" in text for text in found)
