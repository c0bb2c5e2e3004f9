"""The methods on own samples without a critic train, from the reward model or from a judge."""

import json

import pytest

from tests.runs import farm


def logged(ran: farm.Ran, name: str) -> list[dict[str, float]]:
    return [json.loads(line) for line in (ran.artifact(name) / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", farm.CRITIC_FREE)
def test_every_setting_trains(perform, method):
    ran = perform(method, "eval=none")
    log = logged(ran, method)
    assert len(log) == 3
    assert {"reward/mean", "kl", "loss/policy", "loss/kl", "advantage/zero"} <= set(log[0])
    assert log[0]["kl"] == 0.0
    assert ran.facts(method)["estimator"] == method


def test_settings_share_everything_upstream(perform):
    first, second = (perform(method, "eval=none") for method in farm.CRITIC_FREE[:2])
    assert first.keys["rm"] == second.keys["rm"]
    assert second.states["rm"] == "reused"


def test_a_judge_replaces_the_reward_model(perform):
    asked = ("method.reward=judge", "method/judge=world", "method.reward_std=null", "eval=none")
    ran = perform("rloo", *asked)
    assert "rm" not in ran.keys
    cost = json.loads((ran.artifact("rloo") / "artifact.json").read_text())["cost"]
    assert 0 < cost["judge_calls"] <= 3 * 16 * 3 // 2


@pytest.mark.parametrize(
    "asked", [(), ("method.annotator=judge", "method/judge=world", "method.missing_eos_penalty=0")]
)
def test_online_dpo_trains_on_fresh_pairs(perform, asked):
    ran = perform("online_dpo", "eval=none", *asked)
    log = logged(ran, "online_dpo")
    assert len(log) == 3
    assert all(0 < row["pairs"] <= 8 for row in log)
    assert log[0]["margin"] != log[-1]["margin"]
    assert ("rm" in ran.keys) == (not asked)
