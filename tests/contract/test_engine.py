"""The engine contract: what is true of plain torch on one rank is true of ZeRO 0 to 3 on one and two."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from alpacafarm.engine.build import build_engine
from alpacafarm.engine.dist import SingleProcess
from alpacafarm.engine.plain import PlainEngine
from alpacafarm.errors import StageError
from alpacafarm.models.heads import LanguageModel
from alpacafarm.text.collate import Tokens, collate
from tests.contract.engine_scenarios import (
    OPTIM,
    PIECES,
    UNEVEN,
    Case,
    Record,
    actor_critic,
    build,
    cluster,
    cut,
    loss_of,
    probe,
    reference,
    reward_model,
)
from tests.contract.ranks import run_ranks
from tests.unit.models import tiny

ZERO = [Case(f"zero{stage}", stage) for stage in range(4)]
ONE_RANK = [
    Case("plain"),
    *ZERO,
    Case("plain_recompute", recompute=True),
    Case("zero2_offload", 2, offload=True),
    Case("zero3_offload", 3, offload=True),
    Case("plain_tied", tied=True),
    Case("plain_lora", lora=True, tied=True),
    Case("zero2_lora", 2, lora=True, tied=True),
    Case("plain_bf16", dtype="bfloat16"),
    Case("zero2_bf16", 2, dtype="bfloat16"),
]
TWO_RANKS = [
    Case("plain"),
    *ZERO,
    Case("zero3_recompute", 3, recompute=True),
    Case("zero3_tied", 3, tied=True),
    Case("zero3_lora", 3, lora=True, tied=True),
    Case("zero1_bf16", 1, dtype="bfloat16"),
    Case("zero3_bf16", 3, dtype="bfloat16"),
]
RUNS = [(1, case) for case in ONE_RANK] + [(2, case) for case in TWO_RANKS]
Records = dict[tuple[int, str], list[Record]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("engine")


@pytest.fixture(scope="module")
def records(folder: Path) -> Records:
    """By world and case, one for each rank."""
    target = "tests.contract.engine_scenarios:all_courses"
    two = run_ranks(2, target, TWO_RANKS, UNEVEN, folder / "2", timeout_s=400)
    one = run_ranks(1, target, ONE_RANK, PIECES, folder / "1", timeout_s=400)
    found = {(1, case.name): [rank[case.name] for rank in one] for case in ONE_RANK}
    return found | {(2, case.name): [rank[case.name] for rank in two] for case in TWO_RANKS}


@pytest.fixture(params=RUNS, ids=lambda run: f"{run[1].name}-{run[0]}")
def run(request: pytest.FixtureRequest, records: Records) -> tuple[int, Case, list[Record]]:
    world, case = request.param
    ranks = records[world, case.name]
    for record in ranks:
        if isinstance(record, str):
            pytest.fail(record)
    return world, case, ranks


def test_losses_norms_metrics_and_weights_are_those_of_one_whole_batch(run):
    _, case, ranks = run
    losses, norms, metrics, weights = reference(case)
    assert max(norms) > OPTIM.max_grad_norm or case.lora, (
        "clipping must act, and the norm be the one before it"
    )
    # 8 bits of mantissa: a cut changes which gradients are rounded before they are added.
    near = {"rel": 5e-6} if case.dtype == "float32" else {"rel": 2e-2}
    for record in ranks:
        assert record.losses == pytest.approx(losses, **near)
        assert record.norms == pytest.approx(norms, **near)
        for got, expected in zip(record.metrics, metrics, strict=True):
            assert got == pytest.approx(expected, **near)
    tolerance = {"rtol": 0, "atol": 2e-6} if case.dtype == "float32" else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(ranks[0].weights, weights, **tolerance)


def test_generation_gives_the_plain_tokens_whatever_the_length_on_each_rank(run, records):
    _, case, ranks = run
    if case.dtype == "bfloat16":
        pytest.skip("greedy tokens of nearly equal weights may differ")
    variety = {token for row in ranks[-1].generated for token in row}
    assert case.tied or len(variety) > 6, "a model that repeats itself shows little"
    weights = {}
    engine = build(Case("reference", lora=case.lora, tied=case.tied), SingleProcess(), weights)
    for step in range(2):
        engine.update(cut(step, [[16]], 0), loss_of(engine), lr=OPTIM.lr)
    with engine.gathered() as policy:
        prompt = torch.tensor([[3, 11, 4, 19, 5]])
        tokens = policy.generate(
            prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=tiny.PAD
        )
    for rank, record in enumerate(ranks):
        assert record.generated == tokens[:, : 9 + 4 * rank].tolist()


def test_going_on_from_a_checkpoint_is_exact(run):
    _, _, ranks = run
    assert {record.resumed_loss for record in ranks} == {ranks[0].losses[-1]}
    assert ranks[0].weights.keys() == ranks[0].resumed_weights.keys()
    for name, weight in ranks[0].weights.items():
        assert torch.equal(weight, ranks[0].resumed_weights[name]), name


def test_the_exported_policy_gives_the_same_log_probabilities(run, folder):
    world, case, ranks = run
    path = folder / str(world) / f"{case.name}_export"
    loaded = AutoModelForCausalLM.from_pretrained(path).eval()
    assert loaded.dtype == getattr(torch, case.dtype)
    logprob_BT = LanguageModel(loaded)(probe(SingleProcess())).logprob_BT
    # merging adapters adds in another order
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if case.dtype == "float32" else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(logprob_BT, ranks[0].logprobs, **tolerance)


def test_frozen_engines_score_and_speak_as_the_bare_modules_and_record_nothing(run):
    _, case, ranks = run
    near = {"rtol": 0, "atol": 2e-6} if case.dtype == "float32" else {"rtol": 0.02, "atol": 0.02}
    module = actor_critic(case, seed=0).eval()
    prompt = torch.tensor([[3, 11, 4, 19, 5]])
    tokens = module.policy.generate(
        prompt, max_new_tokens=8, do_sample=False, eos_token_id=None, pad_token_id=tiny.PAD
    )
    for rank, record in enumerate(ranks):
        batch = collate(tiny.rows(3 + rank, seed=99), tiny.PAD)
        torch.testing.assert_close(record.scores, reward_model(case)(batch).detach(), **near)
        torch.testing.assert_close(record.frozen_logprobs, module(batch).logprob_BT.detach(), **near)
        assert record.frozen_tokens == tokens[:, : 9 + 4 * rank].tolist()
        assert record.graphs == [False, False]
        assert record.sharded == (case.stage == 3), "at stage 3 a frozen model is sharded too"


@pytest.mark.parametrize(("world", "name"), [(w, c.name) for w, c in RUNS if c.dtype == "bfloat16"])
def test_small_steps_add_up_in_bfloat16(records, world, name):
    moved = records[world, name][0].scales_moved
    assert moved[0] is False, "one step must be too small, or the test shows nothing"
    assert moved[-1] is True


def test_weights_that_diverge_stop_the_stage():
    engine = build(Case("plain"), SingleProcess(), {})
    with torch.no_grad():
        engine.module.policy.lm_head.weight[5] = float("nan")
    with pytest.raises(StageError, match=r"loss=nan .* lower method\.optim\.lr"):
        engine.update(cut(0, [[16]], 0), loss_of(engine), lr=1e-3)


def test_a_step_without_weight_is_refused():
    engine = build(Case("plain"), SingleProcess(), {})
    empty = collate([Tokens(prompt=(3, 4), response=())], tiny.PAD)
    with pytest.raises(ValueError, match=r"no weight.*drop rows with empty responses"):
        engine.update([empty], loss_of(engine), lr=1e-3)


def test_rows_without_a_response_change_nothing_beside_others():
    empty = Tokens(prompt=(3, 4), response=())
    losses = []
    for extra in ([], [collate([empty], tiny.PAD)]):
        engine = build(Case("plain"), SingleProcess(), {})
        losses.append(engine.update([*cut(0, [[16]], 0), *extra], loss_of(engine), lr=1e-3).loss)
    assert losses[0] == losses[1]


def test_frozen_models_are_plain_below_stage_3():
    case = Case("zero2", 2)
    engine = build_engine(
        "deepspeed", reward_model(case), None, cluster=cluster(case), dtype="float32", dist=SingleProcess()
    )
    assert isinstance(engine, PlainEngine)


def test_the_value_network_learns_at_its_own_rate():
    """Adam's first step is lr * g / (|g| + eps) without decay: three times the rate, three times the step."""
    steps = {}
    for scale in (1.0, 3.0):
        module = actor_critic(Case("plain"), seed=0)
        module.lr_scales = {"value.": scale}
        before = {name: p.detach().clone() for name, p in module.named_parameters()}
        optim = OPTIM.model_copy(update={"weight_decay": 0.0})
        engine = PlainEngine(module, optim, device=torch.device("cpu"), dist=SingleProcess())
        engine.update(cut(0, [[16]], 0), loss_of(engine), lr=1e-3)
        steps[scale] = {name: p.detach() - before[name] for name, p in module.named_parameters()}
    for name, step in steps[1.0].items():
        factor = 3.0 if name.startswith("value.") else 1.0
        torch.testing.assert_close(steps[3.0][name], factor * step, rtol=1e-3, atol=1e-6)
