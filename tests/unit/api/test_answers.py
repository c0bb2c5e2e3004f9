"""Replies of every server are read alike, and what is no answer is told as what it is."""

import json
import math

import pytest

from alpacafarm.api.answers import UnusableError, answer_of, body_of, path_of
from alpacafarm.api.tokens import answer_limit, expected_tokens_in, most_tokens_in, most_tokens_out
from alpacafarm.request import Request


def reply(choice, **more):
    return json.dumps({"choices": [choice], **more})


def test_parameters_go_into_the_body_as_they_are():
    request = Request("m", [{"role": "user", "content": "hi"}], parameters={"temperature": 0}, sample=3)
    assert path_of(request) == "/chat/completions"
    assert body_of(request) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
    }
    plain = Request("m", prompt="hi", parameters={"max_tokens": 1})
    assert path_of(plain) == "/completions"
    assert body_of(plain) == {"model": "m", "prompt": "hi", "max_tokens": 1}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "malformed"),
        ("<html>", "malformed"),
        ("[]", "malformed"),
        ('{"choices": []}', "malformed"),
        ('{"choices": [{}]}', "malformed"),
        ('{"choices": [{"message": null}]}', "malformed"),
        ('{"error": "no"}', "malformed"),
        (reply({"message": {"content": None}}), "empty"),
        (reply({"message": {"content": None, "refusal": "I will not"}}), "empty"),
        (reply({"message": {"content": " "}}), "empty"),
        (reply({"text": ""}), "empty"),
        (reply({"text": 5}), "malformed"),
        (reply({"text": ["a"]}), "malformed"),
        (reply({"message": {"tool_calls": [{"function": {}}]}}), "malformed"),
        (reply({"message": {"content": "a"}, "logprobs": {"content": [{"token": "a"}]}}), "malformed"),
        ("[" * 100_000, "malformed"),
        (reply({"text": "a", "logprobs": {"top_logprobs": [{"a": 10**400}]}}), "malformed"),
    ],
)
def test_what_is_no_answer(text, kind):
    with pytest.raises(UnusableError) as caught:
        answer_of(text)
    assert caught.value.kind == kind


def test_an_empty_answer_still_says_what_it_used():
    text = reply({"message": {"content": ""}}, usage={"prompt_tokens": 7, "completion_tokens": 2})
    with pytest.raises(UnusableError) as caught:
        answer_of(text)
    assert caught.value.tokens == (7, 2)


@pytest.mark.parametrize(
    "usage", [None, {}, *({"prompt_tokens": n} for n in (None, -1, 10**30, math.inf, math.nan)), "x"]
)
def test_usage_may_be_missing_or_absurd(usage):
    assert answer_of(reply({"message": {"content": "a"}}, usage=usage)).tokens_in == 0


def test_half_a_surrogate_pair_becomes_what_a_file_can_hold():
    text = reply({"message": {"content": "a\ud83d b \U0001f999"}, "finish_reason": "\udc00"})
    answer = answer_of(text)
    assert (answer.text, answer.finish_reason) == ("a\ufffd b \U0001f999", "\ufffd")


def test_content_may_come_in_parts():
    parts = [{"type": "text", "text": "Output "}, {"type": "text", "text": "(a)"}]
    assert answer_of(reply({"message": {"content": parts}})).text == "Output (a)"


def test_the_worst_case_is_never_below_what_a_tokeniser_makes():
    """A token for each byte is the most that byte-level vocabularies come to."""
    for text in ("plain words", "äöü", "漢字" * 50, "🦙" * 20, "\n\t\x00"):
        assert most_tokens_in(Request("m", [{"role": "user", "content": text}])) > len(text.encode())
        assert most_tokens_in(Request("m", prompt=text)) > len(text.encode())


def test_offered_functions_are_read_too():
    plain = Request("m", prompt="x")
    offering = Request("m", prompt="x", parameters={"tools": [{"function": {"name": "n" * 100}}]})
    assert most_tokens_in(offering) >= most_tokens_in(plain) + 100


@pytest.mark.parametrize(
    ("parameters", "limit"),
    [({}, None), ({"max_tokens": 5}, 5), ({"max_completion_tokens": 7}, 7), ({"max_tokens": 5, "n": 3}, 15)],
)
def test_answers_are_limited_by_their_parameters(parameters, limit):
    request = Request("m", prompt="x", parameters=parameters)
    assert answer_limit(request) == limit
    assert most_tokens_out(request) == (limit or 4096)


def test_expected_tokens_are_a_fourth_of_the_characters():
    assert expected_tokens_in(Request("m", prompt="x" * 4000)) == pytest.approx(1000, abs=5)
