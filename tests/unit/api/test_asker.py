"""What a model says comes back once for each request, is kept, and is not asked again."""

import itertools
import json
import sqlite3
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest

from alpacafarm.api import endpoints
from alpacafarm.api.asker import CHUNK
from alpacafarm.api.store import NAME, AnswerStore
from alpacafarm.errors import BudgetError, JudgeError
from alpacafarm.request import Answer, Failure, Request
from tests.openai_server import OpenAIServer, Reply
from tests.unit.api.asking import api, asked, client, question, rows, states


def test_every_request_comes_back_once_with_its_own_answer(tmp_path):
    with OpenAIServer() as server:
        found = asked(api(server.base_url), tmp_path, (question(i) for i in range(300)))
        assert {i: told.text for i, told in found.items()} == {i: f"[question {i}]" for i in range(300)}
        assert server.counts == {"received": 300, "answered": 300}
    assert states(tmp_path) == {"answered": 300}


def test_the_log_has_no_line_for_each_request(tmp_path, caplog):
    caplog.set_level("INFO")
    with OpenAIServer() as server:
        asked(api(server.base_url), tmp_path, [question(0), question(1)])
    assert caplog.records == []


def test_what_was_answered_is_known_to_every_later_process(tmp_path):
    with OpenAIServer() as server:
        first = asked(api(server.base_url), tmp_path, [question(0), question(1)])
        again = asked(api(server.base_url), tmp_path, [question(1), question(2), question(0)])
        assert server.counts["received"] == 3
    assert [first[i].calls for i in range(2)] == [1, 1]
    assert [again[i].calls for i in range(3)] == [0, 1, 0]
    assert again[2].text == first[0].text
    assert again[2].tokens_in == first[0].tokens_in > 0


def test_equal_requests_are_asked_once_also_at_the_same_time(tmp_path):
    with OpenAIServer(latency_s=0.02) as server:
        found = asked(api(server.base_url), tmp_path, (question(i % 3) for i in range(90)))
        assert server.counts["received"] == 3
    assert len(found) == 90
    assert sum(told.calls for told in found.values()) == 3


def test_several_processes_ask_the_same_once(tmp_path):
    """Each thread has a client of its own, which to the store is another process."""
    spec_requests = [question(i) for i in range(20)]
    found: list[dict] = []
    with OpenAIServer(latency_s=0.05) as server:
        spec = api(server.base_url)
        threads = [
            threading.Thread(target=lambda: found.append(asked(spec, tmp_path, spec_requests)))
            for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.counts == {"received": 20, "answered": 20}
    assert [len(one) for one in found] == [20] * 4
    assert sum(told.calls for one in found for told in one.values()) == 20


KEYS = {
    "model": Request("other", [{"role": "user", "content": "question 0"}], parameters={"max_tokens": 20}),
    "temperature": question(0, temperature=0.5),
    "prompt": question(1),
    "order of messages": Request(
        "m",
        [{"role": "user", "content": "b"}, {"role": "user", "content": "a"}],
        parameters={"max_tokens": 20},
    ),
    "sample": Request("m", question(0).messages, parameters={"max_tokens": 20}, sample=1),
    "completions": Request("m", prompt="question 0", parameters={"max_tokens": 20}),
}


@pytest.mark.parametrize("changed", KEYS)
def test_another_question_is_asked_anew(tmp_path, changed):
    with OpenAIServer() as server:
        asked(api(server.base_url), tmp_path, [question(0)])
        assert asked(api(server.base_url), tmp_path, [KEYS[changed]])[0].calls == 1
        assert server.counts["received"] == 2


def test_nothing_else_is_part_of_the_question(tmp_path):
    """Endpoint, limits, run, stage, annotator and the order of a mapping's keys."""
    with OpenAIServer() as server, OpenAIServer() as other:
        asked(api(server.base_url), tmp_path, [question(0, temperature=0, seed=1)])
        spec = api(other.base_url, concurrency=1, tries=2, requests_per_minute=5)
        same = question(0, seed=1, temperature=0)
        assert asked(spec, tmp_path, [same], stage="other", run="other")[0].calls == 0
        assert other.counts["received"] == 0


def test_answers_of_every_form_are_read(tmp_path):
    replies = {
        "text": Reply("(a)", logprobs=[{"m": -0.1, "M": -2.5}]),
        "function": Reply(arguments='{"rank": 1}'),
    }

    def answer(body):
        return replies["function" if "tools" in body or "functions" in body else "text"]

    function = {"name": "rank", "parameters": {"type": "object"}}
    with OpenAIServer(answer) as server:
        found = asked(
            api(server.base_url),
            tmp_path,
            [
                question(0, logprobs=True, top_logprobs=5),
                question(0, tools=[{"type": "function", "function": function}]),
                question(0, functions=[function]),
                Request("m", prompt="say", parameters={"max_tokens": 5, "logprobs": 5}),
            ],
        )
        assert server.requests[0]["model"] == "m"
        assert {body.get("prompt") for body in server.requests} == {None, "say"}
    assert [found[i].text for i in range(4)] == ["(a)", '{"rank": 1}', '{"rank": 1}', "(a)"]
    assert found[0].top_logprobs == found[3].top_logprobs == [{"m": -0.1, "M": -2.5}]
    assert found[1].top_logprobs is None


def test_requests_are_read_only_as_far_as_needed(tmp_path):
    read = itertools.count()
    with OpenAIServer() as server, client(api(server.base_url, concurrency=4), tmp_path) as c:
        outcomes = c.asker("me").ask(question(next(read)) for _ in itertools.count())
        for _ in range(100):
            next(outcomes)
        outcomes.close()
        assert next(read) <= 100 + 4 + 5 * 32
        assert server.counts["received"] < 300


def test_breaking_off_waits_for_what_is_paid_for(tmp_path):
    with OpenAIServer(latency_s=0.1) as server, client(api(server.base_url, concurrency=8), tmp_path) as c:
        outcomes = c.asker("me").ask(question(i) for i in range(100))
        next(outcomes)
        outcomes.close()
        received = server.counts["received"]
        assert received < 100
    assert states(tmp_path) == {"answered": received}
    assert rows(tmp_path, "SELECT * FROM claims") == []


def test_an_error_in_the_callers_requests_is_the_callers(tmp_path):
    def requests():
        yield question(0)
        raise KeyError("mine")

    with OpenAIServer() as server, pytest.raises(KeyError, match="mine"):
        asked(api(server.base_url), tmp_path, requests())


def test_nothing_is_sent_after_an_error_in_the_callers_requests(tmp_path):
    def requests():
        yield from (question(i) for i in range(CHUNK + 8))
        raise KeyError("mine")

    with OpenAIServer() as server, client(api(server.base_url), tmp_path) as c:
        with pytest.raises(KeyError, match="mine"):
            list(c.asker("me").ask(requests()))
        sent = server.counts["received"]
        assert list(c.asker("me").ask([question(99)]))  # everything handed over before was begun by now
        assert server.counts["received"] <= sent + 1


def test_a_failed_transaction_is_told_once_and_leaves_nothing_in_flight(tmp_path, monkeypatch):
    kept = AnswerStore.keep

    def full(self, *told):
        monkeypatch.setattr(AnswerStore, "keep", kept)
        raise sqlite3.OperationalError("database or disk is full")

    with OpenAIServer() as server, client(api(server.base_url), tmp_path, max_calls=4) as c:
        monkeypatch.setattr(AnswerStore, "keep", full)
        with pytest.raises(JudgeError, match="disk is full; see that it can be written"):
            list(c.asker("me").ask([question(0)]))
        assert rows(tmp_path, "SELECT state FROM attempts") == [("unknown",)]
        assert rows(tmp_path, "SELECT * FROM claims") == []
        assert [told.text for _, told in c.asker("me").ask([question(1)])] == ["[question 1]"]
        with pytest.raises(BudgetError, match=r"max_calls=4: 4 calls"):  # not waited for, for ever
            list(c.asker("me").ask(question(i) for i in range(2, 9)))


def test_concurrency_is_a_limit_and_is_used(tmp_path):
    with OpenAIServer(latency_s=0.1) as server:
        asked(api(server.base_url, concurrency=5), tmp_path, (question(i) for i in range(60)))
        assert server.most_in_flight == 5


def test_several_endpoints_share_the_load(tmp_path):
    with OpenAIServer(latency_s=0.01) as a, OpenAIServer(latency_s=0.01) as b:
        asked(api(a.base_url, b.base_url, concurrency=4), tmp_path, (question(i) for i in range(100)))
        assert a.counts["answered"] + b.counts["answered"] == 100
        assert min(a.counts["answered"], b.counts["answered"]) > 25


def test_a_dead_endpoint_is_left_to_the_others(tmp_path):
    with OpenAIServer() as dead:
        gone = dead.base_url
    with OpenAIServer(latency_s=0.01) as server:
        found = asked(api(gone, server.base_url), tmp_path, (question(i) for i in range(200)))
        assert all(isinstance(told, Answer) for told in found.values())
        assert server.counts["answered"] == 200
    assert states(tmp_path) == {"answered": 200}  # what did not get through is no call


def test_what_did_not_reach_a_dead_endpoint_is_no_try(tmp_path):
    with OpenAIServer() as dead:
        gone = dead.base_url
    with OpenAIServer(latency_s=0.01) as server:
        found = asked(api(gone, server.base_url, tries=1), tmp_path, (question(i) for i in range(100)))
    assert all(isinstance(told, Answer) for told in found.values())


def test_endpoint_that_was_never_reached_is_named(tmp_path):
    with OpenAIServer() as server:
        gone = server.base_url
    with pytest.raises(
        JudgeError, match=r"endpoint e0 \(http://127.*\): cannot be reached .*api_key_env.*base_url"
    ):
        asked(api(gone), tmp_path, [question(0)])


def test_a_key_that_no_header_takes_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-\u00e4")
    with OpenAIServer() as server:
        with pytest.raises(
            JudgeError, match=r"its key has other characters than printable ASCII; set .*MY_KEY"
        ):
            asked(api(server.base_url, api_key_env="MY_KEY"), tmp_path, [question(0)])
        assert not server.counts["received"]


@pytest.mark.parametrize("concurrency", [1, 10])
def test_wrong_key_is_told_at_once(tmp_path, monkeypatch, concurrency):
    monkeypatch.setenv("MY_KEY", "wrong")
    with OpenAIServer(api_key="right") as server:
        spec = api(server.base_url, api_key_env="MY_KEY", concurrency=concurrency)
        with pytest.raises(JudgeError, match=r"endpoint e0 .*status 401: Incorrect.*set .*MY_KEY to its key"):
            asked(spec, tmp_path, [question(i) for i in range(90)])
        assert server.counts["received"] <= concurrency
        monkeypatch.setenv("MY_KEY", "right")
        assert asked(spec, tmp_path, [question(0)])[0].calls == 1


def test_openai_needs_a_key_before_anything_is_sent(tmp_path, monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    spec = api("https://api.openai.com/v1", api_key_env="MY_KEY")
    with pytest.raises(
        JudgeError, match=r"endpoint e0 \(https://api.openai.com/v1\): it needs a key.*MY_KEY"
    ):
        asked(spec, tmp_path, [question(0)])
    assert rows(tmp_path, "SELECT * FROM attempts") == []


def test_unknown_model_is_no_fault_of_the_rows(tmp_path):
    with (
        OpenAIServer(models=["llama"]) as server,
        pytest.raises(
            JudgeError, match=r"404: The model `m` does.*; name a model that it serves, or set .*base_url"
        ),
    ):
        asked(api(server.base_url), tmp_path, [question(0)])


def test_no_key_is_ever_written(tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-very-secret")
    with OpenAIServer(api_key="sk-very-secret") as server:
        asked(api(server.base_url, api_key_env="MY_KEY"), tmp_path, [question(0)])
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(b"very-secret" in path.read_bytes() for path in files)


def test_memory_does_not_grow_with_the_number_of_requests(tmp_path):
    def peak(count: int) -> int:
        with client(api(server.base_url), tmp_path / str(count)) as c:
            tracemalloc.start()
            done = sum(1 for _ in c.asker("me").ask(question(i) for i in range(count)))
            _, most = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert done == count
        return most

    with OpenAIServer(keep=False) as server:
        peak(50)
        assert peak(700) < peak(300) + 300_000


@pytest.mark.parametrize("between", [0, 400])
def test_a_refused_request_is_not_asked_a_second_time(tmp_path, between):
    """Neither at the same time nor long after."""

    def answer(body):
        wrong = body["messages"][0]["content"] == "question 0"
        return Reply(status=422, error={"message": "no"}) if wrong else "yes"

    requests = [question(i) for i in (0, *range(1, between + 1), 0)]
    with OpenAIServer(answer) as server:
        found = asked(api(server.base_url), tmp_path, requests)
        assert server.counts["422"] == 1
    told = [found[0], found[between + 1]]
    assert sorted(t.calls for t in told) == [0, 1]
    assert all(isinstance(t, Failure) and (t.kind, t.message) == ("refused", "status 422: no") for t in told)


def test_request_and_response_are_kept_whole(tmp_path):
    request = Request(
        "m", [{"role": "user", "content": "\u00e4 \u2028 \U0001f999"}], parameters={"top_p": 0.5}, sample=3
    )
    with OpenAIServer() as server:
        asked(api(server.base_url), tmp_path, [request])
        sent = server.requests[0]
    ((kept, response),) = rows(tmp_path, "SELECT request, response FROM answers")
    assert json.loads(kept) == {"sample": 3, "body": sent}
    assert sent["messages"] == request.messages
    assert json.loads(response)["choices"][0]["message"]["content"] == "[\u00e4 \u2028 \U0001f999]"


def test_requests_keep_to_the_rate_limit(tmp_path, monkeypatch):
    """35 of them at 10 in a window: the last five come after three windows."""
    monkeypatch.setattr(endpoints, "MINUTE_S", 0.3)
    with OpenAIServer() as server:
        start = time.monotonic()
        asked(api(server.base_url, requests_per_minute=10), tmp_path, (question(i) for i in range(35)))
        assert time.monotonic() - start >= 0.9
        assert server.counts["answered"] == 35


def test_known_answers_do_not_count_against_the_rate_limit(tmp_path):
    with OpenAIServer() as server:
        asked(api(server.base_url), tmp_path, [question(i) for i in range(50)])
        again = asked(api(server.base_url, requests_per_minute=1), tmp_path, [question(i) for i in range(51)])
    assert sum(told.calls for told in again.values()) == 1


def test_threads_share_a_client(tmp_path):
    with OpenAIServer() as server, client(api(server.base_url), tmp_path) as shared:
        with ThreadPoolExecutor(8) as threads:
            told = list(
                threads.map(lambda _: len(list(shared.asker("me").ask(map(question, range(20))))), range(8))
            )
        assert told == [20] * 8
        assert server.counts["answered"] == 20


def test_a_file_that_is_no_store_is_told(tmp_path):
    (tmp_path / NAME).write_text("no database" * 1000)
    with pytest.raises(JudgeError, match=rf"{NAME}: file is not a database; .* set store to another folder"):
        asked(api("http://127.0.0.1:9"), tmp_path, [question(0)])


def test_a_full_disk_ends_a_transaction_and_holds_nobody_up(tmp_path):
    first = AnswerStore(tmp_path)
    (pages,) = first.db.execute("PRAGMA page_count").fetchone()
    first.db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"), first.transaction():
        first.keep(1, "key", "x" * 100_000, "", "e0")
    with first.transaction():
        assert first.known(["key"]) == {}
        first._claim("claimed")
    first.db.execute("PRAGMA query_only = 1")  # nothing can be written any more
    first.close()
    other = AnswerStore(tmp_path)
    with other.transaction():
        assert not other.is_asked_elsewhere("claimed")
    other.close()
