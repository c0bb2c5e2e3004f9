"""What was stopped on two ranks goes on on one or four, and ends as if it had not been."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.contract.ranks import run_ranks
from tests.unit.methods.conftest import make

TRAINED = {1: ["sft-0", "sft-2", "sft-3", "ppo-2"], 4: ["sft-0", "sft-2", "sft-3"]}
MOVES = [(name, world) for world, names in TRAINED.items() for name in names]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("other ranks")
    make(home)
    run_ranks(2, "tests.contract.other_ranks:begin", str(home), timeout_s=480)
    return home


@pytest.fixture(scope="module")
def facts(home: Path) -> dict[tuple[str, int], dict[str, Any]]:
    found = {}
    for world, names in TRAINED.items():
        names = [*names, "sample"]
        told, *_ = run_ranks(world, "tests.contract.other_ranks:go_on", str(home), names, timeout_s=480)
        found |= {(name, world): facts for name, facts in zip(names, told, strict=True)}
    return found


def log(home: Path, name: str) -> list[dict[str, float]]:
    lines = (home / name / "out" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def weights(home: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(home / name / "out" / "model" / "model.safetensors")


@pytest.mark.parametrize(("name", "world"), MOVES)
def test_training_ends_as_the_undisturbed_one(home, facts, name, world):
    here = f"{name}-on-{world}"
    whole, moved = log(home, name), log(home, here)
    assert [row["step"] for row in moved] == [row["step"] for row in whole]
    stop = 6 if name.startswith("sft") else 2
    assert len(whole) == 2 * stop
    assert moved[:stop] == log(home, f"stopped-{name}") == whole[:stop]
    for one, other in zip(whole, moved, strict=True):
        assert other == pytest.approx(one, rel=1e-5, abs=1e-6)
    torch.testing.assert_close(weights(home, here), weights(home, name), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "world"), MOVES)
def test_a_moved_training_says_so(facts, name, world):
    stop, stage = 6 if name.startswith("sft") else 2, name[-1]
    here = f"{world} rank{'s' * (world > 1)} with ZeRO-{stage}"
    assert facts[name, world]["went_on"] == [f"step {stop}, saved on 2 ranks with ZeRO-{stage}, on {here}"]


def test_the_kl_controller_goes_on_where_it_was(home, facts):
    whole, moved = ([row["kl_coef"] for row in log(home, name)] for name in ("ppo-2", "ppo-2-on-1"))
    assert len(set(whole)) == 4, "it must have moved at every step, or the test shows nothing"
    assert moved == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("world", [1, 4])
def test_sampling_takes_over_what_was_finished_and_says_the_same(home, facts, world):
    whole, moved = home / "sample" / "out", home / f"sample-on-{world}" / "out"
    assert (moved / "tokens.jsonl").read_text() == (whole / "tokens.jsonl").read_text()
    # 24 rows twice: 24 for each rank, of which they had finished two shards of 5 and one
    assert facts["sample", world]["went_on"] == [f"15 of 48 responses, sampled on 2 ranks, on {world}"]
    assert facts["sample", world]["samples"] == 48 - 15
