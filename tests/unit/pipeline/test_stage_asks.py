"""A stage asks through its context; its artifact, the ledger and `action=status` tell the same cost."""

import json
from pathlib import Path

import pytest

from alpacafarm.api.ledger import ledger
from alpacafarm.artifacts.manifest import Outcome
from alpacafarm.artifacts.store import Store
from alpacafarm.errors import BudgetError
from alpacafarm.pipeline.execute import Done, execute
from alpacafarm.pipeline.plan import Plan
from alpacafarm.report.status import show_status
from alpacafarm.spec.api import ApiSpec, BudgetSpec, EndpointSpec
from alpacafarm.spec.run import TrackingSpec
from alpacafarm.stage import Kind, Stage
from alpacafarm.worker import Settings, with_ledger
from launchers.inline import Inline
from tests.openai_server import OpenAIServer
from tests.unit.methods.conftest import CLUSTER


def stage(model: str = "m", questions: int = 20) -> Stage:
    params = {"questions": questions, "model": model}
    run = "tests.unit.pipeline.asking_stage:ask"
    return Stage("annotate", run, Kind.PAIRS, params, {}, seed=1, uses_devices=False)


def performed(
    tmp_path: Path, url: str, asked: Stage, *, max_calls: int | None = None, run: str = "mine"
) -> Done:
    prices = tmp_path / "prices.yaml"
    prices.write_text("m: {input: 1, output: 1000}\n")
    settings = Settings(
        cluster=CLUSTER,
        tracking=TrackingSpec(wandb="off", project="p", group=None),
        run_name=run,
        run_folder=str(tmp_path),
        store=str(tmp_path / "store"),
        api=ApiSpec(endpoints={"e": EndpointSpec(base_url=url)}, prices=str(prices)),
        budget=BudgetSpec(max_usd=None, max_calls=max_calls),
        stages=[asked.key],
    )
    plan, store = Plan((asked,), asked, None), Store(tmp_path / "store")
    (done,) = execute(plan, store, Inline(CLUSTER), settings.model_dump_json())
    return done


def cost(done: Done) -> dict[str, float]:
    told = json.loads((done.artifact.path / "artifact.json").read_text())
    return dict(told["cost"])


def test_a_stage_that_met_its_budget_goes_on_and_tells_all_that_it_cost(tmp_path):
    with OpenAIServer(lambda body: "12345678") as server:
        with pytest.raises(BudgetError, match=r"stage annotate failed: budget\.max_calls=12: 12 calls"):
            performed(tmp_path, server.base_url, stage(), max_calls=12)
        done = performed(tmp_path, server.base_url, stage(), max_calls=50)
        assert server.counts == {"received": 20, "answered": 20}
    assert done.state == "resumed"
    tokens_in = sum(len(f"question {i}") // 4 for i in range(20))
    assert cost(done) == {"judge_calls": 20, "price_usd": pytest.approx(tokens_in / 1e6 + 20 * 3 / 1e3)}
    (line,) = ledger(tmp_path / "store")
    assert (line.run, line.stage, line.key, line.annotator) == (
        "mine",
        "annotate",
        stage().key,
        "annotator-7",
    )
    assert (line.calls, line.answered, line.tokens_in, line.tokens_out) == (20, 20, tokens_in, 60)
    assert line.price_usd == pytest.approx(cost(done)["price_usd"])


def test_an_attempt_that_fails_leaves_no_outcome_of_an_earlier_one(tmp_path):
    store = Store(tmp_path / "store")
    with store.claim(stage()) as claim:
        Outcome(facts={"old": 1}).write(claim.folder)
    with OpenAIServer() as server, pytest.raises(BudgetError):
        performed(tmp_path, server.base_url, stage(), max_calls=12)
    assert (store.partial(stage()) / "stage.json").exists()
    assert not (store.partial(stage()) / "outcome.json").exists()


def test_what_another_stage_has_paid_for_costs_nothing(tmp_path):
    with OpenAIServer() as server:
        performed(tmp_path, server.base_url, stage(questions=10), run="first")
        done = performed(tmp_path, server.base_url, stage(questions=15), run="second")
    assert cost(done)["judge_calls"] == 5
    assert [(line.run, line.calls) for line in ledger(tmp_path / "store")] == [("first", 10), ("second", 5)]


def test_status_shows_what_was_spent(tmp_path, capsys):
    with OpenAIServer() as server:
        performed(tmp_path, server.base_url, stage(questions=3))
    show_status(tmp_path / "store")
    told = capsys.readouterr().out
    assert "annotator-7" in told
    assert "3 calls, 0." in told
    show_status(tmp_path / "nowhere")
    assert "calls" not in capsys.readouterr().out


def test_a_stage_that_asks_nobody_costs_what_it_tells():
    assert with_ledger({"judge_calls": 5, "price_usd": 0.0}, None) == {"judge_calls": 5, "price_usd": 0.0}
