"""Hours by hand, for the paper's runs on a node of eight A100."""

import pytest

from alpacafarm import run
from alpacafarm.cost.hours import Duration, duration, model_lines
from alpacafarm.cost.load import USES
from alpacafarm.cost.work import rows_of
from alpacafarm.stage import Stage

POLICY = 6_738_415_616
SCORER = POLICY - 32000 * 4096 + 4096
TOKENS = 192 + 300
NODE = 8 * 0.3 * 312e12  # operations a second
PAPER = (
    "model=llama-7b",
    "data=alpaca_farm",
    "cluster=slurm_8gpu",
    "cluster.zero.stage=3",
    "cluster.gradient_checkpointing=true",
    "cluster.generation_batch=64",
)


def job(*overrides: str) -> run.Job:
    (found,) = run.check(["force=true", *overrides])
    assert isinstance(found, run.Job)
    return found


def stage_of(made: run.Job, name: str) -> Stage:
    (found,) = (stage for stage in made.plan.stages if stage.name == name)
    return found


def of(made: run.Job, name: str) -> Duration:
    found = duration(stage_of(made, name), made.spec, made.world)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def ppo() -> run.Job:
    return job("method=ppo", *PAPER)


def test_training_is_eight_operations_a_parameter_and_token(ppo):
    sft = of(ppo, "sft")
    assert sft.training == pytest.approx(8 * POLICY * 3 * 10_000 * TOKENS / NODE)
    assert (sft.passes, sft.sampling, sft.gpus) == (0, 0, 8)
    assert sft.gpu_hours == pytest.approx(8 * sft.training / 3600)
    # Simulated pairs are 20,500 at most, both sides of each
    assert of(ppo, "rm").training == pytest.approx(8 * SCORER * 2 * 20_500 * TOKENS / NODE)


def test_checkpointing_goes_forward_once_more(ppo):
    without = job("method=ppo", *PAPER, "cluster.gradient_checkpointing=false")
    assert of(without, "sft").training == pytest.approx(6 / 8 * of(ppo, "sft").training)
    lora = "model.lora={rank: 8, alpha: 16, dropout: 0.0, targets: all-linear, export: merged}"
    adapted = job("method=sft", *PAPER, lora)
    assert of(adapted, "sft").training == pytest.approx(6 / 8 * of(ppo, "sft").training)
    told = [" ".join(model_lines(made.spec)) for made in (ppo, without, adapted)]
    assert "8 N T operations of training with checkpointing, 2 N T" in told[0]
    assert "6 N T operations of training, 2 N T" in told[1]
    assert "6 N T operations of training of adapters with checkpointing, 2 N T" in told[2]


def test_ppo_learns_twice_from_rollouts_that_four_models_read(ppo):
    rollouts = 390 * 512
    found = of(ppo, "ppo")
    assert found.training == pytest.approx(8 * (POLICY + SCORER) * 2 * rollouts * TOKENS / NODE)
    assert found.passes == pytest.approx(2 * 2 * (POLICY + SCORER) * rollouts * TOKENS / NODE)
    share = rollouts // 8
    cache = 2 * 32 * 4096 * 2 * (192 + 150)  # bytes of a row, half way through its response
    a_token = (2 * POLICY * share / 64 + cache * share) / (0.3 * 2.039e12)
    prompts = 2 * POLICY * share * 192 / (0.3 * 312e12)
    assert found.sampling == pytest.approx(prompts + 300 * a_token)


def test_sampling_one_row_at_a_time_reads_the_weights_for_each(ppo):
    slow = job("method=ppo", *PAPER, "cluster.generation_batch=1")
    assert of(slow, "decode policy").sampling > 10 * of(ppo, "decode policy").sampling


def test_a_faster_device_takes_less(ppo):
    fast = job("method=ppo", *PAPER, "cluster.speed.device=h100-sxm")
    assert of(fast, "sft").training == pytest.approx(312 / 989 * of(ppo, "sft").training)
    assert of(ppo, "decode sft").sampling > of(fast, "decode sft").sampling > 0


def test_without_a_device_or_without_rows_nobody_knows(ppo):
    unnamed = job("method=ppo", *PAPER, "cluster.speed=null")
    assert duration(stage_of(unnamed, "sft"), unnamed.spec, 8) is None
    uncounted = job("method=ppo", *PAPER, "data.expect=null")
    assert duration(stage_of(uncounted, "sft"), uncounted.spec, 8) is None
    assert duration(stage_of(uncounted, "ppo"), uncounted.spec, 8) is not None  # which counts its rollouts


def test_what_moves_rows_takes_no_hours(ppo):
    assert of(ppo, "rows sft").hours == 0


@pytest.mark.parametrize(
    ("method", "stage", "rows"),
    [
        ("best_of_n", "sample 16", 16 * 805),
        ("best_of_n", "best_of_n", 805),
        ("best_of_n", "annotate", 4000),  # a pair of each instruction's samples
        ("best_of_n", "rows sft", 3000),
        ("expiter", "sample 16", 16 * 2000),
    ],
)
def test_rows_are_counted_through_the_plan(method, stage, rows):
    sizes = ("data.preference=4000", "data.sft=3000", "data.unlabeled=2000", "data.eval=805")
    made = job(f"method={method}", *sizes, "method.n=16")
    assert rows_of(stage_of(made, stage), made.spec) == rows


@pytest.mark.parametrize("method", ["feedme", "reward_condition", "dpo"])
def test_one_side_is_imitated_and_both_are_compared(method):
    made = job(f"method={method}", *PAPER)
    sides = 1 if method == "feedme" else 2
    epochs = made.spec.method.canonical()["epochs"]
    assert of(made, method).training == pytest.approx(8 * POLICY * sides * 20_500 * epochs * TOKENS / NODE)


def test_every_method_has_hours_and_memory_at_the_papers_scale():
    from alpacafarm import lookup
    from alpacafarm.cost.fit import needs

    for method in lookup.names("methods"):
        if method in ("pretrain", "api_baseline"):
            continue
        made = job(f"method={method}", *PAPER)
        with_model = [stage for stage in made.plan.stages if stage.uses_devices]
        trained = {stage.run for stage in with_model if "optim" in stage.params}
        assert trained <= USES.keys(), f"{method}: say in cost/load.py how its stages use their models"
        assert len(needs(made.spec, with_model, made.world)) == len(with_model), method
        for stage in with_model:
            found = duration(stage, made.spec, made.world)
            assert found is not None, (method, stage.name)
            assert found.hours > 0, (method, stage.name)
