"""A run as it could have been: fabricated numbers, hostile answers."""

import math
from types import MappingProxyType

import pytest

from alpacafarm.report.render import RunReport
from alpacafarm.report.result import Evaluation, Gold, Rate, Reading, Result, StageLine
from alpacafarm.report.table import Sample

HOSTILE = "<script>alert('x')</script> \"quoted\" & <img src=https://evil.example/x.png onerror=alert(1)>"

# name, kind, state, seconds, what it was made from
PLAN = (
    ("base", "policy", "reused", 96.0, {"rows": "world text"}),
    ("world sft", "rows", "made", 0.4, {}),
    ("world unlabeled", "rows", "made", 0.5, {}),
    ("world eval", "rows", "made", 0.3, {}),
    ("sft", "policy", "made", 31.5, {"init": "base", "rows": "world sft"}),
    ("sample", "outputs", "made", 64.1, {"policy": "sft", "rows": "world unlabeled"}),
    ("annotate", "pairs", "made", 2.2, {"outputs": "sample"}),
    ("rm", "reward", "resumed", 51.0, {"init": "sft", "pairs": "annotate"}),
    ("ppo", "policy", "made", 142.7, {"init": "sft", "reward": "rm", "prompts": "world unlabeled"}),
    ("decode ppo", "outputs", "made", 11.0, {"policy": "ppo", "rows": "world eval"}),
    ("decode sft", "outputs", "made", 10.4, {"policy": "sft", "rows": "world eval"}),
    ("winrate", "scores", "made", 1.2, {"candidate": "decode ppo", "baseline": "decode sft"}),
)


def key(name: str) -> str:
    return f"{sum(map(ord, name)) * 7919:016x}"


@pytest.fixture(scope="session")
def result() -> Result:
    stages = tuple(
        StageLine(name, key(name), kind, state, seconds, f"store/{kind}/{key(name)}")
        for name, kind, state, seconds, _ in PLAN
    )
    return Result(
        name="ppo_sim",
        method="ppo",
        feedback="sim",
        model="world",
        data="world",
        seed=1,
        kl_coef=0.0067,
        eval=Evaluation(61.37, 1.52, 59.8, 805, 472, 285, 48, 214.7, "world pool", "SFT, four fixed draws"),
        vs_sft=Rate(63.12, 1.49),
        gold=Gold(58.91, 1.24, 1.732, Rate(60.05, 1.21), Rate(49.83, 1.18)),
        reward_model_score=1.284,
        kl_to_sft=9.417,
        stages=stages,
        outputs="store/outputs/0/outputs.json",
        policy="store/policy/0/model",
        judge_calls=14210,
        price_usd=0.0,
        seconds=413.2,
        version="0.3.0",
    )


@pytest.fixture(scope="session")
def manifests() -> list[dict]:
    speed = {
        "tokens_per_second": 8421.7,
        "samples_per_second": 132.4,
        "peak_memory_bytes": 912_000_000,
        "seconds": {"collect": 80.2, "train": 55.1},
        "computed_per_real_token": 1.18,
    }
    return [
        {
            "kind": kind,
            "key": key(name),
            "stage": name,
            "params": {},
            "inputs": {role: key(parent) for role, parent in inputs.items()},
            "seed": 1,
            "versions": {"alpacafarm": "0.3.0", "python": "3.11.2", "torch": "2.13.0"},
            "throughput": speed if kind in ("policy", "reward") else None,
        }
        for name, kind, _, _, inputs in PLAN
    ]


@pytest.fixture(scope="session")
def log() -> list[dict[str, float]]:
    return [
        {
            "step": step,
            "loss": 0.4 / (1 + step / 30),
            "reward/mean": 1.5 * (1 - math.exp(-step / 40)) + 0.1 * math.sin(step),
            "kl": 0.08 * step + 0.3 * math.sin(step),
            "kl/k3": 0.08 * step + 0.1 * math.sin(step),
            "response_tokens/mean": 42 + 6 * math.sin(step / 15),
            "entropy": 1.6 - step / 120,
            "eos_rate": 0.8 + step / 600,
            "grad_norm": 1.3 + 0.4 * math.cos(step),
            "lr": 2e-4 * (1 - step / 81),
        }
        for step in range(1, 81)
    ]


@pytest.fixture(scope="session")
def run(result, manifests, log) -> RunReport:
    samples = (
        Sample("Name three fruits.", "", "Apples and pears", "Apples, pears and plums.", 2.0, "world"),
        Sample("Thank Ada for the book.", "On Monday", HOSTILE, "Dear Ada, thank you.\n\nBob", 1.5, "world"),
        Sample(HOSTILE, "", "Boil water. " * 30, HOSTILE, 1.0, "world"),
    )
    sft_log = [{"step": row["step"], "loss": 4 * row["loss"] + 1, "lr": row["lr"]} for row in log]
    errors = {"reward_model_score": 0.031, "kl_to_sft": 0.21, "avg_length": 3.4, "score": 0.044}
    return RunReport(
        result=result,
        manifests=manifests,
        logs=MappingProxyType({"sft": sft_log, "ppo": log}),
        samples=samples,
        spec={"name": "ppo_sim", "method": {"name": "ppo", "kl_coef": 0.0067}, "note": HOSTILE},
        reading=Reading("k1", "corrected", 3, errors),
    )
