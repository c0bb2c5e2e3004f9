"""An ensemble in a reward model's place: whoever scores uses all of its members."""

import json
import statistics
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from tests.runs import farm

AS_REWARD = ("method@upstream.rm=rm_ensemble", "upstream.rm.members=2")
LEAST = (*AS_REWARD, "upstream.rm.combine=min")
UNSURE = (*AS_REWARD, "upstream.rm.combine=mean_minus_std", "upstream.rm.std_coef=1.0")


@pytest.mark.parametrize("method", ["ppo", "best_of_n"])
def test_a_method_builds_on_an_ensemble_and_finds_it_again(perform, method):
    ran, again = perform(method, *LEAST), perform(method, *LEAST)
    assert {"rm", "rm member 1", "rm_ensemble"} <= set(ran.keys)
    assert ran.keys["rm"] == perform("ppo").keys["rm"]  # the first member is the plain reward model
    assert ran.keys[method] != perform(method).keys[method]
    assert again.keys == ran.keys
    assert set(again.states.values()) == {"reused"}
    assert (ran.facts("rm_ensemble")["combine"], ran.facts("rm_ensemble")["members"]) == ("min", 2)
    report = (ran.folder / "report.html").read_text()
    assert "rm_ensemble: accuracy on 4 held-out pairs" in report


def test_another_combination_trains_no_member_anew(perform):
    one, other = perform("best_of_n", *LEAST), perform("best_of_n", *UNSURE)
    changed = {name for name, key in other.keys.items() if key != one.keys[name]}
    assert changed == {"rm_ensemble", "best_of_n", "compare"}


def test_the_best_sample_has_the_best_combined_score_by_transformers(perform):
    """None of our code scores: k classifiers, shifts and the formula from the artifact's files."""
    ran = perform("best_of_n", *UNSURE)
    home = ran.artifact("rm_ensemble")
    told = json.loads((home / "ensemble.json").read_text())
    assert (told["combine"], told["std_coef"]) == ("mean_minus_std", 1.0)
    models = [AutoModelForSequenceClassification.from_pretrained(home / "members" / str(m)) for m in (0, 1)]
    scores: dict[str, list[float]] = {}
    texts: dict[str, list[str]] = {}
    samples = ran.artifact("sample 3")
    outputs = json.loads((samples / "outputs.json").read_text())
    lines = (samples / "tokens.jsonl").read_text().splitlines()
    for output, line in zip(outputs, lines, strict=True):
        members = [s + raw(model, line) for s, model in zip(told["shifts"], models, strict=True)]
        combined = statistics.fmean(members) - statistics.pstdev(members)
        scores.setdefault(output["id"], []).append(combined)
        texts.setdefault(output["id"], []).append(output["output"])
    chosen = json.loads(Path(ran.result["outputs"]).read_text())
    assert len(chosen) == len(scores) == 16
    for row in chosen:
        of_text = [s for s, t in zip(scores[row["id"]], texts[row["id"]], strict=True) if t == row["output"]]
        assert max(of_text) == pytest.approx(max(scores[row["id"]]), abs=1e-5)
    mean_of_best = statistics.fmean(max(of_row) for of_row in scores.values())
    assert ran.result["reward_model_score"] == pytest.approx(mean_of_best, abs=1e-4)


def raw(model: torch.nn.Module, line: str) -> float:
    """With the end token, as the world's reward models are trained."""
    prompt, response = json.loads(line)
    end = [model.config.eos_token_id]
    with torch.no_grad():
        return model(torch.tensor([prompt + response + ([] if response[-1:] == end else end)])).logits.item()


@pytest.mark.parametrize("inside", ["", "model"])
def test_a_given_ensemble_rewards_as_the_one_that_was_made(perform, inside):
    """Its members, their combination, end token, mean and deviation all reach PPO."""
    made = perform("ppo", *UNSURE)
    given = (f"given.sft={made.artifact('sft')}", f"given.rm={made.artifact('rm_ensemble') / inside}")
    ran = perform("ppo", *given)
    assert not {"rm", "rm member 1", "rm_ensemble", "annotate"} & set(ran.keys)
    assert farm.hashes(ran.artifact("ppo")) == farm.hashes(made.artifact("ppo"))
    assert ran.result["reward_model_score"] == made.result["reward_model_score"]
