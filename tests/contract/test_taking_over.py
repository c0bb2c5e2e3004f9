"""A checkpoint is gone on from by other numbers of ranks, at other ZeRO stages and by the other engine."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from alpacafarm.engine.dist import SingleProcess
from alpacafarm.errors import ArtifactError
from tests.contract.engine_scenarios import (
    PIECES,
    UNEVEN,
    Case,
    build,
    reference,
    take_over,
)
from tests.contract.ranks import run_ranks

CASES = {
    case.name: case
    for case in [
        Case("plain"),
        *(Case(f"zero{stage}", stage) for stage in range(4)),
        Case("zero2_offload", 2, offload=True),
        Case("zero3_offload", 3, offload=True),
        Case("plain_lora", lora=True, tied=True),
        Case("zero2_lora", 2, lora=True, tied=True),
        Case("zero3_lora", 3, lora=True, tied=True),
        Case("plain_bf16", dtype="bfloat16"),
        *(Case(f"zero{stage}_bf16", stage, dtype="bfloat16") for stage in (1, 2, 3)),
    ]
}
WRITERS = {
    1: ["zero0", "zero2_offload", "plain_lora"],
    2: ["plain", "zero0", "zero1", "zero2", "zero3", "zero3_lora", "zero1_bf16", "zero3_bf16"],
}
MOVES = {  # from so many ranks to so many; by whom to whom
    (2, 1): [
        ("plain", "zero2"),
        ("zero0", "zero0"),
        ("zero1", "plain"),
        ("zero2", "zero2"),
        ("zero2", "zero0"),
        ("zero3", "zero3"),
        ("zero3", "zero2_offload"),
        ("zero2", "zero3_offload"),
        ("zero3_lora", "zero2_lora"),
        ("zero1_bf16", "zero2_bf16"),
        ("zero3_bf16", "plain_bf16"),
    ],
    (1, 2): [("zero0", "zero2"), ("zero2_offload", "zero3"), ("plain_lora", "zero3_lora")],
    (2, 2): [("zero2", "zero3"), ("zero3", "zero1"), ("zero1", "zero0"), ("zero0", "plain")],
    (2, 4): [
        ("plain", "plain"),
        ("zero0", "zero0"),
        ("zero2", "zero2"),
        ("zero3", "zero3"),
        ("zero1_bf16", "zero3_bf16"),
        ("zero3_bf16", "zero1_bf16"),
    ],
}
SIZES = {1: PIECES[-1], 2: UNEVEN[-1], 4: [[2], [1, 4], [5], [4]]}
CUTS = {1: PIECES, 2: UNEVEN}
Found = tuple[str, float, dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints before the last step, in a folder for each number of ranks."""
    home = tmp_path_factory.mktemp("checkpoints")
    for world, names in WRITERS.items():
        cases = [CASES[name] for name in names]
        target = "tests.contract.engine_scenarios:checkpoints"
        run_ranks(world, target, cases, CUTS[world], home / str(world), timeout_s=400)
    return home


@pytest.fixture(scope="module")
def taken_over(folder: Path) -> dict[Any, Found]:
    found = {}
    for (before, after), moves in MOVES.items():
        pairs = [(CASES[writer], CASES[reader]) for writer, reader in moves]
        target = "tests.contract.engine_scenarios:take_over"
        first, *_ = run_ranks(after, target, pairs, SIZES[after], folder / str(before), timeout_s=400)
        found |= {(before, after, *move): seen for move, seen in zip(moves, first, strict=True)}
    return found


@pytest.mark.parametrize(
    "move",
    [(*ranks, *move) for ranks, moves in MOVES.items() for move in moves],
    ids=lambda move: f"{move[2]}-{move[0]}-{move[3]}-{move[1]}",
)
def test_the_next_step_is_that_of_an_undisturbed_run(taken_over, move):
    before, _, writer, reader = move
    layout, loss, weights = taken_over[move]
    assert layout.startswith(f"{before} rank")
    losses, _, _, expected = reference(CASES[reader])
    # as in test_engine.py
    assert loss == pytest.approx(losses[-1], rel=5e-6 if "bf16" not in writer else 2e-2)
    near = {"rtol": 0, "atol": 2e-6} if "bf16" not in writer else {"rtol": 0.02, "atol": 0.02}
    torch.testing.assert_close(weights, expected, **near)


def test_a_lost_shard_is_named(folder, tmp_path):
    lost = folder / "2" / "zero2" / "engine" / "zero_pp_rank_1_mp_rank_00_optim_states.pt"
    lost.rename(tmp_path / "aside")
    try:
        with pytest.raises(
            ArtifactError, match=rf"{lost.name} is missing; delete the stage's scratch folder"
        ):
            take_over(SingleProcess(), [(CASES["zero2"], CASES["plain"])], SIZES[1], folder / "2")
    finally:
        (tmp_path / "aside").rename(lost)


def test_a_parameter_that_is_not_in_it_is_named(folder):
    pair = CASES["zero2"], CASES["plain_lora"]
    with pytest.raises(
        ArtifactError, match=r"holds 0 of \d+ elements of policy\..*lora.* to start the stage"
    ):
        take_over(SingleProcess(), [pair], SIZES[1], folder / "2")


FORMER = r"cluster\.processes=2 cluster\.engine=deepspeed cluster\.zero\.stage=3"
NVME = r"offload\.optimizer=nvme"


@pytest.mark.parametrize("reader", ["plain", "zero3"])
def test_what_lies_on_nvme_stays_with_its_settings(tmp_path, reader):
    (tmp_path / "checkpoint" / "engine" / "offloaded_tensors").mkdir(parents=True)
    layout = {"engine": "deepspeed", "world": 2, "stage": 3}
    (tmp_path / "checkpoint" / "engine.json").write_text(json.dumps(layout))
    engine = build(CASES[reader], SingleProcess(), {})
    way_out = rf"{FORMER} cluster\.zero\.{NVME}.* go on with those, or delete {tmp_path} to start"
    with pytest.raises(ArtifactError, match=way_out):
        engine.restore(tmp_path / "checkpoint")


def test_nothing_is_taken_over_to_nvme(folder):
    engine = build(CASES["zero3"], SingleProcess(), {})
    engine.offload["parameters"] = "nvme"  # an engine that really swaps needs libaio, and minutes to compile
    with pytest.raises(ArtifactError, match=rf"{FORMER}, and what lies on nvme cannot be taken over"):
        engine.restore(folder / "2" / "zero3")
