"""Whole runs whose feedback and evaluation come from a model behind an API: here a server of this process."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest

from alpacafarm.errors import AlpacaFarmError
from tests.openai_server import OpenAIServer, Reply, said
from tests.runs import farm
from tests.runs.farm import Ran
from tests.unit.api.asking import rows

JUDGES = ("feedback/judge=api", "eval/judge=api")
PICKS = (
    "kind: api, prompt: pairwise, answer: label, temperature: 0, max_tokens: 9, seed: 0, both_orders: true"
)
PICKS += ", extra: null"
Perform = Callable[..., Ran]


def longer_is_better(body: dict) -> str | Reply:
    """As each of the judges below wants to be answered; about some pairs it says nothing of use."""
    _, _, _, first, _, second, _ = said(body).rsplit('"""', 6)
    if (len(first) * len(second)) % 7 == 0:
        return "Neither."
    is_first = len(first) >= len(second)
    if "logprobs" in body:
        return Reply("m", logprobs=[{"m": -0.1 if is_first else -3.0, "M": -3.0 if is_first else -0.1}])
    if "tools" in body:
        return Reply(arguments=json.dumps({"best": "m" if is_first else "M"}))
    if "model_1" in said(body):
        return str([{"model": "model_1", "rank": 2 - is_first}, {"model": "model_2", "rank": 1 + is_first}])
    return "m" if is_first else "M"


@pytest.fixture(scope="module")
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer(longer_is_better) as running:
        yield running


@pytest.fixture
def judged(perform: Perform, server: OpenAIServer) -> Perform:
    """A tiny run with both judges behind the server."""

    def performed(method: str, *overrides: str) -> Ran:
        place = (f"api.endpoints.openai.base_url={server.base_url}", "api.endpoints.openai.api_key_env=null")
        return perform(method, *place, *overrides)

    return performed


def test_a_run_pays_for_each_verdict_once(judged: Perform, server: OpenAIServer):
    first = judged("dpo", *JUDGES)
    assert first.result["judge_calls"] == server.counts["answered"] == server.counts["received"] > 30
    assert first.result["price_usd"] > 0
    assert first.result["eval"]["judge"] == "gpt-4o-mini-2024-07-18+pairwise+label"
    told = first.facts("annotate")
    assert told["failed"] == told["failures"]["unparsable"] > 0
    assert told["pairs"] + told["failed"] + told["without_a_pair"] == 48
    counts = first.result["eval"]
    scores = json.loads((first.artifact("compare") / "scores.json").read_text())
    assert counts["n_total"] + scores["eval"]["n_failures"] == 16
    lost = {stage for stage in first.keys if not re.match("rows|base|sft|sample|decode sft", stage)}
    for stage in lost:
        shutil.rmtree(first.artifact(stage))
    before = server.counts["received"]
    again = judged(
        "dpo", *JUDGES, "name=again", "api.endpoints.openai.concurrency=3", "cluster.micro_batch=4"
    )
    assert server.counts["received"] == before
    assert (
        {"annotate", "judge outputs", "compare"}
        < lost
        == {name for name, state in again.states.items() if state == "made"}
    )
    assert again.result["judge_calls"] == first.result["judge_calls"]  # what the verdicts cost, ever
    assert again.result["eval"] == first.result["eval"]


@pytest.mark.parametrize(
    ("override", "asks"),
    [
        ("eval.judge.model=gpt-4o-2024-08-06", True),
        ("eval.judge.temperature=0.5", True),
        ("eval.judge.prompt={prompt}", True),
        ("eval.judge.both_orders=true", True),  # the other order of each
        ("eval.judge.answer=tool", True),
        ("eval.judge.answer=logprobs", True),
        ("eval/judge=alpaca_eval eval.judge.name=alpaca_eval_gpt4", True),
        ("eval.sft_draws=3", False),
        ("eval.judge.prompt={copy}", False),
        ("api.endpoints.openai.timeout_s=9 api.endpoints.openai.tries=2 cluster.generation_batch=8", False),
    ],
)
def test_another_question_is_asked_and_no_other_change_asks(
    judged: Perform, server: OpenAIServer, tmp_path: Path, override: str, asks: bool
):
    judged("sft", *JUDGES)
    before = server.counts["received"]
    copied = Path(__file__).parents[2] / "alpacafarm/judges/prompts/pairwise.txt"
    (tmp_path / "pairwise.txt").write_text(copied.read_text())
    (tmp_path / "other.txt").write_text(copied.read_text().replace("## Task", "## The task"))
    places = {"prompt": tmp_path / "other.txt", "copy": tmp_path / "pairwise.txt"}
    judged("sft", *JUDGES, *override.format(**places).split())
    assert (server.counts["received"] > before) == asks


def test_responses_are_judged_as_they_are_sampled(judged: Perform, server: OpenAIServer):
    before = server.counts["received"]
    asked = ("method.annotator=judge", "method.missing_eos_penalty=0", "method/judge=api", "eval=none")
    made = judged("online_dpo", *asked)
    assert server.counts["received"] - before == made.result["judge_calls"] > 0
    assert made.facts("online_dpo")["failed_verdicts"] > 0


def test_two_processes_ask_as_one_does(judged: Perform, server: OpenAIServer):
    """Both compare the same pairs, of each snapshot."""
    asked = ("feedback/judge=api", "eval=none", "method.snapshot_every=6", "method/pick=judge")

    def picked(model: str, *overrides: str) -> Ran:
        judge = f"method.pick.judge={{{PICKS}, model: {model}}}"
        return judged("dpo", *asked, judge, *overrides)

    one = cost(picked("gpt-4o-2024-08-06"), "pick by judge")
    before = server.counts["received"]
    two = cost(picked("gpt-4.1-mini-2025-04-14", "cluster.processes=2"), "pick by judge")
    assert server.counts["received"] - before == two["judge_calls"] == one["judge_calls"] > 8


def test_an_evaluation_pays_where_it_asks(judged: Perform):
    """And is told and stored as one that asks and measures in one stage."""
    ran = judged("dpo", *JUDGES)
    told = {stage: cost(ran, stage) for stage in ("judge outputs", "compare")}
    assert told["judge outputs"]["judge_calls"] > 16
    assert told["judge outputs"]["price_usd"] > 0
    assert not any(told["compare"].values())
    assert ran.result["vs_sft"]["win_rate"] > 0
    assert ran.result["kl_to_sft"] is not None
    rows = json.loads((ran.artifact("compare") / "annotations.json").read_text())
    assert len(rows) == 16
    report = (ran.folder / "report.html").read_text()
    assert "comparisons with SFT that got no verdict" in report


def cost(ran: Ran, stage: str) -> dict[str, float]:
    return dict(json.loads((ran.artifact(stage) / "artifact.json").read_text())["cost"])


@pytest.mark.parametrize("to_all", [False, True])  # as at a terminal
def test_what_a_worker_has_in_flight_at_ctrl_c_is_waited_for(
    judged: Perform, store: Path, tmp_path: Path, to_all: bool
):
    judged("sft", "eval=none")
    with OpenAIServer(longer_is_better, latency_s=3.0) as slow:
        place = (f"api.endpoints.openai.base_url={slow.base_url}", "api.endpoints.openai.api_key_env=null")
        asked = farm.tiny("rm", "cluster.at_once=2", f"store={store}", *place)
        model = "gpt-4.1-nano-2025-04-14" if to_all else "gpt-4.1-2025-04-14"
        asked += ["feedback/judge=api", f"feedback.judge.model={model}", "eval=none"]
        command = farm.command(*asked, f"hydra.run.dir={tmp_path / 'run'}")
        process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
        while process.poll() is None and slow.counts["received"] < 5:
            time.sleep(0.05)
        (os.killpg if to_all else os.kill)(process.pid, signal.SIGINT)
        assert process.wait() == 130
        assert slow.counts["answered"] == slow.counts["received"] < 48
    query = f"SELECT state FROM attempts WHERE model = '{model}' AND calls = 1"
    assert rows(store, query) == [("answered",)] * slow.counts["received"]


def test_a_judge_that_never_gives_a_verdict_ends_the_run(judged: Perform, server: OpenAIServer):
    refused = Reply(status=400, error={"message": "no"})
    said = r"gave no verdict on any of \d+ pairs, .* refused: .*choose another"
    with (
        mock.patch.object(server, "answer", return_value=refused),
        pytest.raises(AlpacaFarmError, match=said),
    ):
        judged("rm", "feedback/judge=api", "feedback.judge.max_tokens=5", "eval=none")
