"""Which snapshot becomes the policy: by step, or by the val split, never by what the evaluation measures."""

import json

import pytest

from tests.runs import farm

EVERY_STEP = "method.snapshot_every=1"


def snapshot(ran: farm.Ran, step: int) -> dict[str, str]:
    training = ran.artifact("ppo")
    last = step == ran.facts("ppo")["steps"]
    return farm.hashes(training / "model" if last else training / "snapshots" / f"step-{step}")


def by_step(step: int) -> str:
    return f"method.pick={{by: step, step: {step}}}"


def test_picks_by_step_share_one_training(perform):
    first, second = (perform("ppo", EVERY_STEP, by_step(step)) for step in (1, 2))
    assert first.keys["ppo"] == second.keys["ppo"]
    assert first.keys["pick step 1"] != second.keys["pick step 2"]
    assert farm.hashes(first.artifact("pick step 1") / "model") == snapshot(first, 1) != snapshot(first, 2)
    assert first.result["picked"] == {"by": "step", "step": 1}
    assert first.result["policy"] == str(first.artifact("pick step 1") / "model")
    assert first.result["outputs"] != second.result["outputs"]


def test_a_step_that_training_did_not_reach_is_its_last(perform):
    ran = perform("ppo", EVERY_STEP, by_step(2), "method.kl_budget=1e-9")
    assert ran.facts("ppo")["steps"] == 1  # at the first step the policy is the reference
    assert ran.result["picked"] == {"by": "step", "step": 1}


@pytest.mark.parametrize("by", ["reward", "judge"])
def test_the_best_snapshot_on_val_is_picked_and_the_result_says_so(perform, by):
    ran = perform("ppo", EVERY_STEP, f"method/pick={by}")
    picked = ran.result["picked"]
    assert picked["split"] == "val"
    assert picked["by"] == ("reward" if by == "reward" else "world-eval")
    assert sorted(picked["values"]) == ["1", "2", "3"]
    assert len(set(picked["values"].values())) > 1
    assert picked["values"][str(picked["step"])] == max(picked["values"].values())
    assert farm.hashes(ran.artifact(f"pick by {by}") / "model") == snapshot(ran, picked["step"])
    assert f"step {picked['step']}, by" in (ran.folder / "report.html").read_text()


@pytest.mark.parametrize("by", ["reward", "judge"])
def test_nothing_of_the_evaluation_reaches_the_choice(perform, by):
    ran = perform("ppo", EVERY_STEP, f"method/pick={by}")
    inputs = {s["key"]: told(ran, s["name"])["inputs"] for s in ran.result["stages"]}

    def ancestors(key: str) -> set[str]:
        return {key}.union(*(ancestors(parent) for parent in inputs.get(key, {}).values()))

    seen = ancestors(ran.keys[f"pick by {by}"])
    assert ran.keys["rows val"] in seen
    assert ran.keys["rows eval"] not in seen


def told(ran: farm.Ran, name: str) -> dict:
    return json.loads((ran.artifact(name) / "artifact.json").read_text())
