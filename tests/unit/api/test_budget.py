"""No call is made that could pass the budget, whoever makes it; what was answered is kept."""

import re
import threading

import pytest

from alpacafarm.api import fate
from alpacafarm.api.store import AnswerStore, Over, Purpose, Sent, Spent
from alpacafarm.errors import BudgetError, JudgeError
from alpacafarm.request import Answer, Request
from alpacafarm.spec.api import BudgetSpec
from tests.openai_server import Faults, OpenAIServer, Reply
from tests.unit.api.asking import api, asked, client, question, rows, states


@pytest.fixture
def prices(tmp_path):
    file = tmp_path / "prices.yaml"
    file.write_text("m: {input: 1000, output: 2000}\n")  # 0.001 and 0.002 USD a token
    return file


def spent_usd(store):
    return rows(store, "SELECT coalesce(sum(price), 0) FROM attempts")[0][0] / 1e9


def ask_all(c, count):
    """The answers until the budget ends it, and its error."""
    found = []
    with pytest.raises(BudgetError) as caught:
        found.extend(c.asker("me").ask(question(i) for i in range(count)))
    return found, str(caught.value)


def test_calls_stop_at_the_cap_and_go_on_with_a_higher_one(tmp_path):
    with OpenAIServer(latency_s=0.005) as server:
        spec = api(server.base_url, concurrency=32)
        with client(spec, tmp_path, max_calls=100) as c:
            found, text = ask_all(c, 250)
        assert re.fullmatch(
            r"budget\.max_calls=100: 100 calls and 0\.0000 USD are spent .*; 150 requests are not answered.*"
            r"same command with budget\.max_calls=250 or more goes on and pays nothing twice",
            text,
        )
        assert server.counts["received"] == len(found) == 100
        again = asked(spec, tmp_path, (question(i) for i in range(250)), max_calls=250)
        assert server.counts["received"] == 250
        assert max(server.answered_texts.values()) == 1
    assert all(isinstance(told, Answer) for told in again.values())


def test_known_answers_are_told_when_nothing_more_may_be_asked(tmp_path):
    with OpenAIServer() as server:
        asked(api(server.base_url), tmp_path, [question(i) for i in range(5)])
        with client(api(server.base_url), tmp_path, max_calls=0, stage="other") as c:
            found, text = ask_all(c, 8)
        assert re.match(r"budget.max_calls=0: 0 calls .*; 3 requests are not answered", text)
    assert sorted(i for i, _ in found) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("fault_rate", [0.0, 0.3])
def test_the_price_cap_holds_under_concurrency_retries_and_several_processes(
    tmp_path, prices, monkeypatch, fault_rate
):
    monkeypatch.setattr(fate, "FIRST_WAIT_S", 0.005)
    cap, store = 2.0, tmp_path / "store"
    faults = Faults(fault_rate, kinds=("429", "500", "garbage", "empty", "cut"), seed=3)
    with OpenAIServer(latency_s=0.005, faults=faults) as server:
        spec = api(server.base_url, prices=prices, concurrency=32, tries=20)
        told = []

        def run(first):
            with client(spec, store, max_usd=cap) as c:
                try:
                    list(c.asker("me").ask(question(first + i) for i in range(400)))
                except BudgetError as error:
                    told.append(str(error))

        threads = [threading.Thread(target=run, args=(n * 1000,)) for n in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(told) == 3
        assert all(text.startswith("budget.max_usd=2: ") for text in told)
        worst = max(price for (price,) in rows(store, "SELECT price FROM attempts")) / 1e9
        assert states(store).total() == server.counts["received"]
        usage = rows(store, "SELECT sum(tokens_in), sum(tokens_out) FROM attempts")[0]
        assert usage[0] * 0.001 + usage[1] * 0.002 <= spent_usd(store) + 1e-9
    assert cap - 3 * worst - 0.2 < spent_usd(store) <= cap


def test_a_reservation_that_is_not_used_up_makes_room(tmp_path, prices):
    """Each request could cost 0.1 USD and costs a tenth of that: far more than cap / 0.1 are answered."""
    with OpenAIServer(lambda body: "(a)", latency_s=0.002) as server:
        spec = api(server.base_url, prices=prices)
        with client(spec, tmp_path, max_usd=1.0) as c:
            found, text = ask_all(c, 500)
        assert "budget.max_usd=1: " in text
        assert len(found) > 100
    assert 0.85 < spent_usd(tmp_path) <= 1.0


def test_a_budget_is_shared_by_the_stages_of_a_run_and_no_others(tmp_path):
    with OpenAIServer() as server:
        asked(api(server.base_url), tmp_path, [question(i) for i in range(10)], stage="first")
        asked(api(server.base_url), tmp_path, [question(i) for i in range(10, 20)], stage="not of this run")
        with client(api(server.base_url), tmp_path, stage="second", max_calls=15) as c:
            c.purpose = type(c.purpose)(**{**vars(c.purpose), "shared": ("first", "second")})
            found, text = ask_all(c, 60)
        assert "budget.max_calls=15: 15 calls" in text
    assert len([1 for _, told in found if told.calls]) == 5


def test_price_of_an_answer_is_that_of_its_tokens(tmp_path, prices):
    with OpenAIServer(lambda body: "x" * 40) as server:
        told = asked(api(server.base_url, prices=prices), tmp_path, [question(0), question(0)])
    assert told[0].price_usd + told[1].price_usd == pytest.approx(2 * 0.001 + 11 * 0.002)
    assert sorted((told[0].price_usd > 0, told[1].price_usd > 0)) == [False, True]
    assert spent_usd(tmp_path) == pytest.approx(0.024)


def test_what_does_not_tell_its_tokens_costs_the_worst_case(tmp_path, prices):
    with OpenAIServer(lambda body: Reply("yes", usage=False)) as server:
        told = asked(api(server.base_url, prices=prices), tmp_path, [question(0)])[0]
    assert told.price_usd > 20 * 0.002  # max_tokens


def test_a_request_without_limit_is_refused_under_a_price_cap(tmp_path, prices):
    endless = Request("m", [{"role": "user", "content": "talk"}])
    with OpenAIServer() as server:
        with pytest.raises(
            JudgeError, match=r"budget\.max_usd=1: a request to m sets no max_tokens.*set max_tokens"
        ):
            asked(api(server.base_url, prices=prices), tmp_path, [endless], max_usd=1.0)
        assert server.counts["received"] == 0
        assert isinstance(asked(api(server.base_url, prices=prices), tmp_path, [endless])[0], Answer)


def test_what_may_have_been_answered_counts_as_the_worst_case(tmp_path, prices):
    faults = Faults(1.0, kinds=("stall",))
    with OpenAIServer(faults=faults) as server:
        spec = api(server.base_url, prices=prices, timeout_s=0.1, tries=1)
        told = asked(spec, tmp_path, [question(0)])[0]
    assert told.price_usd == spent_usd(tmp_path) > 20 * 0.002  # max_tokens
    assert states(tmp_path) == {"unknown": 1}


def test_a_status_that_says_that_nothing_was_done_costs_nothing(tmp_path, prices):
    with OpenAIServer(lambda body: Reply(status=500)) as server:
        told = asked(api(server.base_url, prices=prices, tries=1), tmp_path, [question(0)])[0]
    assert (told.calls, told.price_usd, spent_usd(tmp_path)) == (1, 0.0, 0.0)


def test_what_another_process_has_in_flight_may_leave_room(tmp_path, prices):
    """The cap holds one reservation of 0.1 USD; what is paid in the end is a tenth of it."""
    store = tmp_path / "store"
    with OpenAIServer(latency_s=0.3) as server:
        spec = api(server.base_url, prices=prices)
        with client(spec, store, max_usd=0.15) as one, client(spec, store, max_usd=0.15) as other:
            first = one.asker("me").ask(question(i) for i in range(2))
            next(first)  # the second one is about to be in flight
            (told,) = other.asker("me").ask([question(2)])
            assert isinstance(told[1], Answer)
            assert [place for place, _ in first] == [1]
        assert server.counts["received"] == 3
    assert spent_usd(store) < 0.15


def test_the_budget_is_at_its_end_when_nothing_was_in_flight_at_that_moment(tmp_path):
    """Whoever looks later may find that what left no room was settled, and that there is room now."""
    purpose = Purpose("run", "key", "annotate", "me", ("key",), BudgetSpec(max_usd=1.0, max_calls=None))
    askers = [AnswerStore(tmp_path), AnswerStore(tmp_path)]

    def start(asker, key, price):
        with asker.transaction():
            return asker.start(key, purpose, model="m", endpoint="e0", price=price)

    sent = start(askers[0], "a", 700_000_000)
    assert isinstance(sent, Sent)
    for asker in askers:
        assert start(asker, "b", 400_000_000) == Over(Spent(1, 700_000_000), is_final=False)
    with askers[0].transaction():
        askers[0].end(sent.attempt, "answered", price=650_000_000)
    for asker in askers:
        assert start(asker, "b", 400_000_000) == Over(Spent(1, 650_000_000), is_final=True)
    assert isinstance(start(askers[0], "c", 100_000_000), Sent)
    askers[0].close()
    assert start(askers[1], "b", 400_000_000) == Over(Spent(2, 750_000_000), is_final=True)
    askers[1].close()
