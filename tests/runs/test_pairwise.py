"""Every setting of DPO trains, and what does not depend on it is made once."""

import json

import pytest

from tests.runs import farm

SETTINGS = ("dpo", "simpo", *farm.PAIRWISE)


@pytest.mark.parametrize("method", SETTINGS)
def test_every_setting_trains(perform, method):
    ran = perform(method, "eval=none")
    log = [json.loads(line) for line in (ran.artifact(method) / "log.jsonl").read_text().splitlines()]
    assert len(log) >= 3
    assert {"loss", "margin", "accuracy"} <= set(log[0])
    assert ran.facts(method)["pairs"] == ran.facts("annotate")["pairs"]


def test_settings_share_one_reference(perform):
    first = perform("dpo", "eval=none")
    for method, *how in (["dpo", "method.beta=0.5"], ["ipo"], ["dpo_norm", "method.epochs=2"]):
        ran = perform(method, *how, "eval=none")
        assert ran.keys["reference"] == first.keys["reference"]
        assert ran.states["reference"] == "reused"
        assert ran.keys[method] != first.keys["dpo"]


@pytest.mark.parametrize("method", ["simpo", "orpo"])
def test_what_has_no_reference_measures_none(perform, method):
    assert "reference" not in perform(method, "eval=none").keys


def test_the_robust_loss_knows_the_flips_of_simulated_annotators(perform):
    ran = perform("robust", "eval=none", "feedback.flip_probability=0.1")
    spec = json.loads((ran.folder / "spec.json").read_text())
    assert spec["method"]["flip_probability"] == 0.1
