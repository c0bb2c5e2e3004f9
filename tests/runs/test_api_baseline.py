"""A model behind an API is evaluated like a policy, and its answers are paid for once."""

import json
from pathlib import Path

import pytest

from tests.openai_server import OpenAIServer, said


@pytest.fixture(scope="module")
def server():
    with OpenAIServer(lambda body: f"{len(said(body))} characters") as running:
        yield running


@pytest.fixture
def asked(perform, server):
    def performed(*overrides):
        place = (f"api.endpoints.openai.base_url={server.base_url}", "api.endpoints.openai.api_key_env=null")
        return perform("api_baseline", *place, *overrides)

    return performed


def test_its_answers_are_judged_and_paid_for_once(asked, server):
    ran = asked()
    assert ran.result["eval"]["n_total"] == 16
    assert ran.result["policy"] is ran.result["vs_sft"] is ran.result["reward_model_score"] is None
    outputs = json.loads(Path(ran.result["outputs"]).read_text())
    assert [o["generator"] for o in outputs] == ["gpt-4o-mini-2024-07-18"] * 16
    assert all(o["output"].endswith("characters") for o in outputs)
    received = server.counts["received"]
    assert received == server.counts["answered"] == len({o["instruction"] + o["input"] for o in outputs})
    assert ran.result["price_usd"] > 0
    again = asked("name=other", "api.endpoints.openai.concurrency=2", "eval/judge=noisy")
    assert again.states["ask"] == "reused"
    assert server.counts["received"] == received
    asked("seed=7")
    assert server.counts["received"] > received


def test_a_reward_model_may_judge_it(asked, perform):
    ran = asked("eval/judge=reward", f"given.rm={perform('rm').artifact('rm')}")
    assert ran.result["eval"]["judge"].startswith("reward-")
    assert ran.result["eval"]["n_total"] == 16
