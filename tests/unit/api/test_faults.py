"""Faults are retried or told as what they are; the ledger has what the server has counted."""

import time
from collections import Counter
from email.utils import formatdate

import pytest

from alpacafarm.api import fate
from alpacafarm.errors import JudgeError
from alpacafarm.request import Answer, Failure
from tests.openai_server import FAULTS, Faults, OpenAIServer, Reply, said
from tests.unit.api.asking import api, asked, client, question, rows, states

COUNT = 250


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(fate, "FIRST_WAIT_S", 0.005)


def refuses(body):
    return int(said(body).split()[1]) % 50 == 7


@pytest.mark.parametrize("seed", [0, 1])
def test_with_three_faults_in_ten_every_row_ends_once_and_every_call_is_counted(tmp_path, seed):
    faults = Faults(0.3, seed=seed, retry_after_s=0.05, stall_s=60.0, refuse=refuses)
    with OpenAIServer(faults=faults) as server:
        spec = api(server.base_url, timeout_s=8.0, tries=10)
        found = asked(spec, tmp_path, (question(i) for i in range(COUNT)))
        counts = server.counts
    assert set(found) == set(range(COUNT))
    for i, told in found.items():
        if i % 50 == 7:
            assert told == Failure("refused", "status 400: The request is wrong.", calls=1)
        elif isinstance(told, Answer):
            assert told.text == f"[question {i}]"
        else:
            assert told.kind in ("empty", "malformed", "exhausted")
    assert sum(isinstance(told, Answer) for told in found.values()) > COUNT - 10
    assert all(counts[kind] for kind in FAULTS)
    ledger = states(tmp_path)
    assert ledger["answered"] == counts["answered"] == len(rows(tmp_path, "SELECT * FROM answers"))
    assert ledger["unknown"] == counts["cut"] + counts["stall"]
    assert ledger["failed"] == counts["received"] - ledger["answered"] - ledger["unknown"]
    assert ledger.total() == counts["received"] == sum(told.calls for told in found.values())
    assert max(server.answered_texts.values()) == 1


def once(*replies):
    """Answers with each reply in turn, the last for ever."""
    left = list(replies)
    return lambda body: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize(
    ("reply", "kind", "tries"),
    [
        (Reply(status=400, error={"message": "bad"}), "refused", 1),
        (Reply(status=404, error={"message": "gone", "code": "x"}), "refused", 1),
        (Reply(status=422, error={"message": "bad"}), "refused", 1),
        (Reply(status=408), "exhausted", 4),
        (Reply(status=409), "exhausted", 4),
        (Reply(status=429), "exhausted", 4),
        (Reply(status=503), "exhausted", 4),
        (Reply(""), "empty", 3),
        (Reply(None), "empty", 3),
        (Reply(" \n"), "empty", 3),
    ],
    ids=lambda x: str(x.status) if isinstance(x, Reply) and x.status != 200 else repr(x)[:22],
)
def test_each_fault_has_its_failure_and_its_number_of_tries(tmp_path, reply, kind, tries):
    with OpenAIServer(lambda body: reply) as server:
        told = asked(api(server.base_url, tries=4), tmp_path, [question(0)])[0]
        assert isinstance(told, Failure)
        assert (told.kind, told.calls) == (kind, tries)
        assert server.counts["received"] == tries
    assert rows(tmp_path, "SELECT * FROM answers") == []


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503])
def test_a_passing_fault_is_tried_again(tmp_path, status):
    with OpenAIServer(once(Reply(status=status), Reply("yes"))) as server:
        told = asked(api(server.base_url), tmp_path, [question(0)])[0]
    assert isinstance(told, Answer)
    assert (told.text, told.calls) == ("yes", 2)


def test_failures_are_not_kept_and_asked_again_by_the_next_process(tmp_path):
    with OpenAIServer(once(Reply(status=400), Reply("yes"))) as server:
        assert isinstance(asked(api(server.base_url), tmp_path, [question(0)])[0], Failure)
        assert isinstance(asked(api(server.base_url), tmp_path, [question(0)])[0], Answer)


@pytest.mark.parametrize("as_date", [False, True])
def test_the_server_says_when(tmp_path, as_date):
    until = int(time.time()) + 2  # dates have whole seconds
    said_at: list[float] = []

    def answer(body):
        said_at.append(time.time())
        wait = formatdate(until, usegmt=True) if as_date else f"{until - said_at[0]:.3f}"
        return Reply("yes") if said_at[1:] else Reply(status=429, headers={"Retry-After": wait})

    with OpenAIServer(answer) as server:
        asked(api(server.base_url), tmp_path, [question(0)])
    assert len(said_at) == 2
    assert said_at[1] >= until - 0.001  # the header's last digit


def test_a_server_that_is_out_for_hours_is_not_waited_for(tmp_path):
    limited = Reply(status=429, headers={"Retry-After": "7200"}, error={"message": "daily limit"})
    with OpenAIServer(lambda body: limited) as server:
        told = asked(api(server.base_url), tmp_path, [question(0)])[0]
    assert told == Failure("exhausted", "status 429: daily limit; Retry-After is 7200 s", calls=1)


def test_money_that_is_used_up_ends_the_asking(tmp_path):
    out = Reply(status=429, error={"message": "You exceeded your quota", "code": "insufficient_quota"})
    with OpenAIServer(lambda body: out) as server, pytest.raises(JudgeError, match="exceeded your quota"):
        asked(api(server.base_url, concurrency=1), tmp_path, [question(i) for i in range(5)])


def test_many_rate_limits_at_once_rest_the_endpoint(tmp_path):
    """Each would else be met by the next request, and use up its tries."""
    start = time.monotonic()

    def answer(body):
        if time.monotonic() - start < 0.3:
            return Reply(status=429, headers={"Retry-After": "0.3"})
        return "yes"

    with OpenAIServer(answer) as server:
        found = asked(api(server.base_url, concurrency=8), tmp_path, [question(i) for i in range(60)])
        assert server.counts["received"] < 60 + 30
    assert all(isinstance(told, Answer) for told in found.values())


def test_an_endpoint_that_dies_on_the_way_ends_the_asking_with_its_name(tmp_path):
    with OpenAIServer() as server:
        spec = api(server.base_url, tries=4)
        with client(spec, tmp_path) as c:
            asking = c.asker("me").ask(question(i) for i in range(10_000))
            next(asking)
            server.die()
            with pytest.raises(JudgeError, match=r"endpoint e0 .*cannot be reached"):
                list(asking)
    assert states(tmp_path)["answered"] > 0
    assert Counter(state for (state,) in rows(tmp_path, "SELECT state FROM attempts"))["sent"] == 0
