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


def test_kto_shares_the_reference_and_measures_its_mismatched_responses_once(perform):
    first, ran = perform("dpo", "eval=none"), perform("kto", "eval=none")
    assert ran.keys["reference"] == first.keys["reference"]
    again = perform("kto", "method.beta=0.5", "eval=none")
    assert again.keys["mismatched reference"] == ran.keys["mismatched reference"]
    assert again.states["kto"] == "made"
    unpaired = perform("kto", "method.unpaired=true", "eval=none")
    assert unpaired.keys["reference"] == first.keys["reference"]
    kinds = unpaired.facts("kto")["desirable"], unpaired.facts("kto")["undesirable"]
    assert sum(kinds) == unpaired.facts("kto")["pairs"] - unpaired.facts("kto")["ties"]


def test_kto_learns_from_own_thumbs(perform, tmp_path):
    rows = [
        {"instruction": f"Say {word}.", "output": f"{word}{end}", "desirable": end == "!"}
        for word in ("hi", "yes", "no", "bye", "thanks", "please", "sorry", "well")
        for end in ("!", "?", "")
    ]
    for name in ("sft", "thumbs"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = [f"data.{name}={tmp_path / name}.jsonl" for name in ("sft", "thumbs")]
    asked = ["data=files", "model=scratch", "method.unpaired=true", "eval=none", *files]
    ran = perform("kto", *asked, world=False)
    assert (ran.facts("kto")["desirable"], ran.facts("kto")["undesirable"]) == (8, 16)
    assert not {"annotate", "sample pairs", "rm"} & set(ran.keys)


def test_the_robust_loss_knows_the_flips_of_simulated_annotators(perform):
    ran = perform("robust", "eval=none", "feedback.flip_probability=0.1")
    spec = json.loads((ran.folder / "spec.json").read_text())
    assert spec["method"]["flip_probability"] == 0.1
