"""Sums of a stage's parts that can be done by hand."""

from dataclasses import replace

import pytest

from alpacafarm.cost.load import Load, Net, Use
from alpacafarm.cost.memory import BUCKET, Layout, adapters, estimate, moments, resident
from alpacafarm.cost.shape import Shape, shape_of_config
from alpacafarm.spec.model import LoraSpec

SEVEN_B = 6_738_415_616
SEVEN_B_SCORER = SEVEN_B - 32000 * 4096 + 4096
GIB = 2**30


@pytest.fixture(scope="module")
def llama() -> Shape:
    sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32}
    found = shape_of_config({"model_type": "llama", "num_attention_heads": 32, "vocab_size": 32000, **sizes})
    assert found is not None
    return found


def layout(**changes: object) -> Layout:
    lay = Layout(
        engine="deepspeed",
        stage=2,
        world=8,
        dtype="bfloat16",
        on_gpu=True,
        checkpointing=False,
        lora=None,
        optimiser_offloaded=False,
        weights_offloaded=False,
    )
    return replace(lay, **changes)  # type: ignore[arg-type]


def sft(shape: Shape, **changes: object) -> Load:
    load = Load(
        trained=(Net("policy", shape),),
        frozen=(),
        use=Use(),
        rows=1,
        micro_batches=16,
        measured=1,
        sampled=0,
        prompt=192,
        response=300,
    )
    return replace(load, **changes)  # type: ignore[arg-type]


def ppo(shape: Shape) -> Load:
    return sft(
        shape,
        trained=(Net("policy", shape), Net("critic", shape, is_scorer=True)),
        frozen=(Net("reference", shape), Net("reward", shape, is_scorer=True)),
        use=Use(critic=True, entropy=True),
        sampled=32,
    )


def test_states_of_a_7b_are_sixteen_bytes_a_parameter_on_one_device(llama: Shape):
    held = resident(sft(llama), layout(world=1, stage=1))
    assert held["weights"] == 2 * SEVEN_B
    assert held["optimiser"] == 12 * SEVEN_B  # float32 weights and two moments: 81 GB, the paper's K = 12


@pytest.mark.parametrize(
    ("stage", "weights", "optimiser"), [(1, 2, 12 / 8), (2, 2, 12 / 8), (3, 2 / 8, 12 / 8)]
)
def test_each_stage_shards_what_the_paper_says(llama: Shape, stage: int, weights: float, optimiser: float):
    held = resident(sft(llama), layout(stage=stage))
    assert held["weights"] == pytest.approx(weights * SEVEN_B)
    assert held["optimiser"] == pytest.approx(optimiser * SEVEN_B)


def test_gradients_are_sharded_from_stage_2_on(llama: Shape):
    whole, sharded = (
        moments(sft(llama), layout(stage=stage))["optimiser's step"]["gradients"] for stage in (1, 2)
    )
    assert whole == 8 * sharded == 4 * SEVEN_B


def test_plain_float32_has_no_second_weights(llama: Shape):
    held = resident(sft(llama), layout(engine="plain", stage=0, world=1, dtype="float32"))
    assert (held["weights"], held["optimiser"]) == (4 * SEVEN_B, 8 * SEVEN_B)


def test_ppo_holds_four_models_and_trains_two(llama: Shape):
    held = resident(ppo(llama), layout())
    assert held["weights"] == 2 * 2 * (SEVEN_B + SEVEN_B_SCORER)
    assert held["optimiser"] == 12 / 8 * (SEVEN_B + SEVEN_B_SCORER)
    assert resident(ppo(llama), layout(stage=3))["weights"] == held["weights"] / 8


def test_the_cache_has_keys_and_values_of_every_position(llama: Shape):
    found = moments(ppo(llama), layout())
    cache = found["end of a batch"]["cache"]
    assert cache == 2 * 32 * 4096 * 2 * 32 * 492  # two of them, layers, hidden, bytes, rows, tokens
    assert found["prompts of a batch"]["cache"] == cache
    on_cpu = moments(ppo(llama), layout(on_gpu=False))
    assert on_cpu["prompts of a batch"]["cache"] == cache * 192 / 492


def test_adapters_of_all_linear_layers(llama: Shape):
    lora = LoraSpec(rank=8, alpha=16, dropout=0.0, targets="all-linear")
    a_layer = 8 * (4 * (4096 + 4096) + 3 * (4096 + 11008))
    assert adapters(Net("policy", llama), lora) == 32 * a_layer
    two = LoraSpec(rank=8, alpha=16, dropout=0.0, targets=["q_proj", "v_proj"])
    assert adapters(Net("policy", llama), two) == 32 * 2 * 8 * (4096 + 4096) == 4_194_304
    held = resident(sft(llama), layout(lora=two))
    assert held["optimiser"] == 12 / 8 * 4_194_304
    assert held["weights"] == 2 * SEVEN_B


def test_offloading_takes_the_states_off_the_device_only_where_there_is_another(llama: Shape):
    away = layout(optimiser_offloaded=True)
    assert resident(sft(llama), away)["optimiser"] == 0
    assert moments(sft(llama), away)["forward and backward"]["gradients"] == 0
    assert resident(sft(llama), layout(stage=3, weights_offloaded=True))["weights"] == 0


def test_a_gpu_gives_the_whole_bucket_and_no_process(llama: Shape):
    tiny = replace(llama, layers=1, vocab=100)
    on_gpu, on_cpu = (resident(sft(tiny), layout(stage=3, on_gpu=on_gpu)) for on_gpu in (True, False))
    assert on_gpu["buffers"] - on_cpu["buffers"] == 2 * (BUCKET - tiny.parameters)
    assert on_gpu["process"] == 0 < on_cpu["process"]


def test_gradients_wait_for_further_micro_batches_only(llama: Shape):
    one, two = (
        moments(sft(llama, micro_batches=count), layout())["forward and backward"]["gradients"]
        for count in (1, 2)
    )
    assert (one, two) == (0, 4 / 8 * SEVEN_B)


@pytest.mark.parametrize("change", [{"checkpointing": True}, {"stage": 3}, {"world": 16}])
def test_what_saves_memory_does(llama: Shape, change: dict[str, object]):
    before, after = (estimate(ppo(llama), layout(**changes)) for changes in ({}, change))
    assert after.total < before.total
    assert after.total == round(sum(after.parts.values()))
