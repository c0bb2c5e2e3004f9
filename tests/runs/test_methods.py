"""Every method on every kind of feedback, from nothing to `result.json`."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.runs import farm

METHODS = sorted(farm.METHOD)
RATE = {"win_rate", "standard_error"}
KEYS = {
    "": "name method feedback model data seed kl_coef eval vs_sft gold reward_model_score kl_to_sft "
    "stages outputs policy picked judge_calls price_usd seconds version",
    "eval": "win_rate standard_error length_controlled_win_rate n_total n_wins n_wins_base n_draws "
    "avg_length judge reference length_controlled_standard_error",
    "gold": "win_rate standard_error score vs_sft null",
    "stages": "name key kind state seconds folder went_on",
}


def keys(part: str) -> set[str]:
    return set(KEYS[part].split())


def logged(ran: farm.Ran, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (ran.artifact(name) / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("feedback", ["sim", "human"])
@pytest.mark.parametrize("method", [*METHODS, *farm.PAIRWISE])
def test_result_has_the_keys_and_the_artifacts_load(perform, method, feedback):
    ran = perform(method, f"feedback={feedback}")
    result = ran.result
    assert set(result) == keys("")
    assert all(set(stage) == keys("stages") for stage in result["stages"])
    assert (result["method"], result["model"], result["data"], result["seed"]) == (
        method,
        "world",
        "world",
        42,
    )
    assert result["feedback"] == (None if method in ("base", "sft") else feedback)
    spec = json.loads((ran.folder / "spec.json").read_text())
    assert result["kl_coef"] == spec["method"].get("kl_coef")
    assert {"spec.json", "report.html"} <= {path.name for path in ran.folder.iterdir()}
    made = result["stages"][-1]
    if made["kind"] == "reward":
        absent = ("eval", "vs_sft", "gold", "outputs", "policy")
        assert [result[name] for name in absent] == [None] * len(absent)
        model = AutoModelForSequenceClassification.from_pretrained(Path(made["folder"]) / "model")
        assert model.config.num_labels == 1
        return
    assert set(result["eval"]) == keys("eval")
    assert set(result["gold"]) == keys("gold")
    assert result["eval"]["n_total"] == 16
    assert result["eval"]["n_wins"] + result["eval"]["n_wins_base"] + result["eval"]["n_draws"] == 16
    outputs = json.loads(Path(result["outputs"]).read_text())
    assert len(outputs) == 16
    assert all({"instruction", "input", "output", "generator", "dataset"} <= set(row) for row in outputs)
    if method in ("base", "best_of_n"):
        assert result["policy"] is None
        return
    model = AutoModelForCausalLM.from_pretrained(result["policy"])
    ids = AutoTokenizer.from_pretrained(result["policy"])("Say hello.", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()


@pytest.mark.parametrize("method", ["ppo", "best_of_n"])
def test_methods_that_leave_the_sft_model_are_measured_against_it(perform, method):
    result = perform(method).result
    assert set(result["vs_sft"]) == RATE
    assert set(result["gold"]["vs_sft"]) == set(result["gold"]["null"]) == RATE
    assert result["kl_to_sft"] > 0 if method == "best_of_n" else math.isfinite(result["kl_to_sft"])
    assert math.isfinite(result["reward_model_score"])


def test_a_policy_with_a_prompt_prefix_is_sampled_with_it_and_measured_without(perform):
    ran = perform("reward_condition", "eval/judge=reward", f"given.rm={perform('rm').artifact('rm')}")
    assert ran.facts("reward_condition")["prompt_prefix"] == "<good>"
    assert ran.facts("decode policy")["prompt_prefix"] == "<good>"
    assert ran.facts("decode sft")["prompt_prefix"] == ""
    policy, sft = (
        [json.loads(line) for line in (ran.artifact(name) / "tokens.jsonl").read_text().splitlines()]
        for name in ("decode policy", "decode sft")
    )
    plain = {tuple(prompt) for prompt, _ in sft}
    assert {tuple(prompt) for prompt, _ in policy} == plain
    assert math.isfinite(ran.result["reward_model_score"])
    assert 0 < ran.result["kl_to_sft"] < 1e3

    folder = Path(ran.result["policy"])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    control = set(tokenizer.convert_tokens_to_ids(["<good>", "<bad>"]))
    assert control.isdisjoint(token for _, response in policy for token in response)
    prompt, _ = policy[0]
    ids = torch.tensor([[prompt[0], min(control), *prompt[1:]]])
    said = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False)
    assert control.isdisjoint(said[0, ids.size(1) :].tolist())


def test_sft_has_nothing_to_be_measured_against(perform):
    result = perform("sft").result
    assert result["vs_sft"] is None
    assert result["gold"]["vs_sft"] is result["gold"]["null"] is None
    assert result["kl_to_sft"] is result["reward_model_score"] is None


def test_transformers_scores_as_we_do(perform):
    """The exported reward model, without any of our code, gives the mean score that the run reports."""
    ran = perform("best_of_n")
    model = AutoModelForSequenceClassification.from_pretrained(ran.artifact("rm") / "model")
    eos = [model.config.eos_token_id] if ran.facts("rm")["end_with_eos"] else []
    scores = []
    for line in (ran.artifact("best_of_n") / "tokens.jsonl").read_text().splitlines():
        prompt, response = json.loads(line)
        ended = response[-1:] == [model.config.eos_token_id]
        ids = prompt + response + ([] if ended else eos)
        with torch.no_grad():
            scores.append(model(torch.tensor([ids])).logits.item())
    assert sum(scores) / len(scores) == pytest.approx(ran.result["reward_model_score"], abs=1e-4)


@pytest.mark.parametrize("name", ["base", "sft"])
def test_loss_falls(perform, name):
    losses = [row["loss"] for row in logged(perform("sft"), name)]
    assert losses[-1] < losses[0]


def test_logs_have_the_fixed_names(perform):
    ran = perform("ppo")
    common = {"step", "loss", "lr", "grad_norm"}
    assert common <= set(logged(ran, "sft")[0])
    assert common | {"kl", "reward/mean", "entropy", "response_tokens/mean"} <= set(logged(ran, "ppo")[0])


@pytest.mark.parametrize("method", METHODS)
def test_second_run_makes_nothing(perform, method):
    first, second = perform(method), perform(method)
    assert set(second.states.values()) == {"reused"}
    assert second.keys == first.keys
    assert second.result["judge_calls"] == 0
    assert second.result["eval"] == first.result["eval"]


@pytest.mark.parametrize("method", METHODS)
def test_spec_of_a_run_repeats_it(perform, tmp_path, method):
    first = perform(method)
    again = farm.perform(tmp_path / "again", [f"spec={first.folder / 'spec.json'}"])
    assert again.keys == first.keys
    assert set(again.states.values()) == {"reused"}
    assert (again.folder / "spec.json").read_text() == (first.folder / "spec.json").read_text()


def test_spec_of_a_run_is_repeated_and_changed_from_the_shell(perform, tmp_path):
    first = perform("ppo")
    command = [f"spec={first.folder / 'spec.json'}", "method.kl_coef=0.1"]
    again = farm.by_command(tmp_path / "again", command)
    assert again.result["kl_coef"] == 0.1
    assert {name for name, key in again.keys.items() if key != first.keys[name]} == {
        "ppo",
        "decode policy",
        "compare",
    }


def test_other_kl_coef_trains_only_ppo_anew(perform):
    first, second = perform("ppo"), perform("ppo", "kl_coef=0.1")
    changed = {name for name, key in second.keys.items() if key != first.keys[name]}
    assert changed == {"ppo", "decode policy", "compare"}
    assert second.states["sft"] == second.states["rm"] == "reused"


def test_other_seed_shares_the_rows_alone(perform):
    first, second = perform("sft"), perform("sft", "seed=7")
    shared = {name for name, key in second.keys.items() if key == first.keys[name]}
    assert shared == {"rows pretrain", "rows sft", "rows eval"}


def same_losses(one: farm.Ran, other: farm.Ran) -> None:
    assert one.keys == other.keys
    assert set(other.states.values()) == {"made"}
    for name in ("base", "sft"):
        ours, theirs = ([row["loss"] for row in logged(ran, name)] for ran in (one, other))
        assert theirs == pytest.approx(ours, abs=1e-5)


def test_deepspeed_trains_like_plain(perform, tmp_path):
    asked = farm.tiny("sft", "cluster.engine=deepspeed", "cluster.processes=1", f"store={tmp_path / 'store'}")
    same_losses(perform("sft", "eval=none"), farm.by_command(tmp_path / "run", [*asked, "eval=none"]))


def test_two_processes_train_like_one(perform, on_two_processes):
    same_losses(perform("sft", "eval=none", farm.LONG), on_two_processes)


def test_ppo_on_two_processes_collects_what_one_collects(perform, tmp_path):
    """Under ZeRO-2, from the shell: the same samples, scores and first losses."""
    one = perform("ppo")
    given = [f"given.sft={one.artifact('sft')}", f"given.rm={one.artifact('rm')}", "eval=none"]
    asked = farm.tiny("ppo", "cluster=local_2proc", f"store={tmp_path / 'store'}")
    two = farm.by_command(tmp_path / "run", [*asked, *given])
    assert len(logged(two, "ppo")) == len(logged(one, "ppo")) == 3
    for name in ("reward/mean", "kl", "response_tokens/mean", "loss"):
        assert logged(two, "ppo")[0][name] == pytest.approx(logged(one, "ppo")[0][name], abs=1e-4)
