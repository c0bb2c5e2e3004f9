"""What statuses, waits and limits mean."""

import random
from email.utils import formatdate

import pytest

from alpacafarm.api.endpoints import MINUTE_S, Window
from alpacafarm.api.fate import LONGEST_WAIT_S, back_off, fate_of, retry_after
from alpacafarm.api.http import Reply

MODEL_GONE = '{"error": {"message": "The model `m` does not exist", "code": "model_not_found"}}'
OUT_OF_MONEY = '{"error": {"message": "no", "code": "insufficient_quota"}}'


@pytest.mark.parametrize(
    ("status", "text", "answered", "what"),
    [
        (400, "", False, "refused"),
        (401, "", True, "hopeless"),
        (403, "", False, "hopeless"),
        (403, "", True, "refused"),  # this very text is not allowed
        (404, "not found", False, "hopeless"),  # a wrong base_url
        (404, "not found", True, "refused"),
        (404, MODEL_GONE, False, "hopeless"),
        (404, '{"error": {"message": "no such file", "code": "x"}}', False, "refused"),
        (404, '{"error": "model \\"m\\" not found, try pulling it first"}', False, "hopeless"),  # Ollama
        (408, "", False, "again"),
        (409, "", False, "again"),
        (413, "", False, "refused"),
        (422, "", False, "refused"),
        (429, "", False, "again"),
        (429, OUT_OF_MONEY, True, "hopeless"),
        (500, "<html>", False, "again"),
        (529, "", False, "again"),
    ],
)
def test_a_status_means(status, text, answered, what):
    assert fate_of(Reply(status, text, None), "m", answered=answered).what == what


def test_the_servers_words_are_kept():
    assert fate_of(Reply(404, MODEL_GONE, None), "m", answered=False).message == (
        "status 404: The model `m` does not exist"
    )


def test_retry_after_is_seconds_or_a_date():
    assert retry_after("7", 0.0) == 7
    assert retry_after("0.5", 0.0) == 0.5
    assert retry_after(formatdate(1030.0, usegmt=True), 1000.0) == 30
    assert retry_after(formatdate(1000.0, usegmt=True), 1030.0) == 0
    assert retry_after("soon", 0.0) is None
    assert retry_after(None, 0.0) is None


def test_back_off_doubles_up_to_its_limit_and_never_hurries():
    for failed in range(1, 12):
        longest = min(LONGEST_WAIT_S, 0.5 * 2 ** (failed - 1))
        waits = [back_off(failed) for _ in range(50)]
        assert longest / 2 <= min(waits) < max(waits) <= longest


@pytest.mark.parametrize("seed", range(5))
def test_no_minute_ever_has_more_than_the_limit(seed):
    draw = random.Random(seed)
    window, now, taken = Window(100), 1000.0, []
    for _ in range(400):
        amount = draw.randint(1, 60)
        wait = window.wait_s(amount, now)
        if wait > 0:  # to wait shorter would be too much
            early = now + wait * 0.999
            assert sum(n for at, n in taken if at + MINUTE_S > early) + amount > 100
        now += wait
        window.take(amount, now)
        taken.append((now, amount))
        assert sum(n for at, n in taken if at - 1e-9 > now - MINUTE_S) <= 100  # but for rounding
        now += draw.expovariate(1.0)


def test_more_than_the_limit_goes_alone():
    window = Window(10)
    window.take(3, 0.0)
    assert window.wait_s(50, 1.0) == 59.0
    assert window.wait_s(50, 60.0) == 0.0


def test_what_was_not_used_is_given_back():
    window = Window(1)
    window.take(1, 5.0)
    assert window.wait_s(1, 6.0) > 0
    window.give_back(1, 5.0)
    assert window.wait_s(1, 6.0) == 0


def test_an_errors_message_can_be_kept_whatever_it_holds():
    assert fate_of(Reply(400, '{"error": {"message": "\\ud800"}}', None), "m", answered=True).message == (
        "status 400: \ufffd"
    )
    deep = fate_of(Reply(400, "[" * 100_000, None), "m", answered=True)
    assert deep.what == "refused"
