"""Whole training stages on two ranks under ZeRO 1, 2 and 3 against plain torch on one."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from alpacafarm.data.rows import read_rows, write_rows
from alpacafarm.engine.dist import SingleProcess
from alpacafarm.types import Example, Preference
from tests.contract.ranks import run_ranks
from tests.contract.stage_scenarios import CRITIC_FREE, train_all
from tests.unit.methods.conftest import make, make_ensemble

Log = list[dict[str, float]]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Log]:
    """The logs of every method, by `<method>-<stage>`; `None` is plain torch on one rank.

    For `reference` it is what it measured."""
    home = tmp_path_factory.mktemp("ranks")
    tiny = make(home)
    make_ensemble(tiny)
    rows = read_rows(tiny.rows.path / "rows.jsonl", Example)
    others = [*rows[1:], rows[0]]
    pairs = [
        Preference(a.id, a.instruction, a.input, a.output, b.output, preference=1.0 + (i % 2))
        for i, (a, b) in enumerate(zip(rows, others, strict=True))
    ]
    write_rows(home / "pairs" / "pairs.jsonl", pairs)
    train_all(SingleProcess(), str(home), [None])
    run_ranks(2, "tests.contract.stage_scenarios:train_all", str(home), [1, 2, 3], timeout_s=480)
    files = [*home.glob("*/out/log.jsonl"), *home.glob("*/out/logprobs.jsonl")]
    return {p.parent.parent.name: read(p) for p in files}


def read(path: Path) -> Log:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize(
    "method", ["sft", "reward_condition", "rm", "ppo", "quark", *CRITIC_FREE, "online_dpo", "dpo", "kto"]
)
def test_losses_are_those_of_plain_torch_on_one_rank(logs, method, stage):
    plain, sharded = logs[f"{method}-None"], logs[f"{method}-{stage}"]
    assert len(plain) == len(sharded) >= 2
    for one, two in zip(plain, sharded, strict=True):
        assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
        assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_rollouts_are_the_same_responses_on_any_number_of_ranks(logs, stage):
    first = ("reward/mean", "response_tokens/mean", "eos_rate", "kl")
    for method in ("ppo", *CRITIC_FREE, "online_dpo"):
        for name in first:
            plain = logs[f"{method}-None"][0][name]
            assert logs[f"{method}-{stage}"][0][name] == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_reference_point_is_that_of_the_whole_step(logs, stage):
    points = [row["reference_point"] for row in logs["kto-None"]]
    assert points[0] < 1e-5 < points[-1]
    assert [row["reference_point"] for row in logs[f"kto-{stage}"]] == pytest.approx(points, abs=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
def test_the_reference_says_the_same_on_any_number_of_ranks(logs, stage):
    one, two = logs["reference-None"], logs[f"reference-{stage}"]
    assert len(one) > 40
    assert [row["row"] for row in two] == [row["row"] for row in one]
    assert [row["logprob"] for row in two] == pytest.approx([row["logprob"] for row in one], abs=1e-4)
