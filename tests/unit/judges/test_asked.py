"""Order, ties, both orders, failures and the bill of a judge that asks a model."""

import json
import math

import pytest

from alpacafarm.judges import api
from alpacafarm.judges.asked import AskedModel, reader
from alpacafarm.request import Answer, Failure, Request
from alpacafarm.spec.judge import ApiJudge
from alpacafarm.types import Pair
from tests.unit.judges.scripted import Scripted, said, swapped

PAIRS = [Pair(str(i), f"Say {i}.", "", f"apple {i}", f"pear {i}") for i in range(40)]


def spec(**changes):
    told = {
        "kind": "api",
        "model": "some-model",
        "prompt": "pairwise",
        "answer": "label",
        "temperature": 0.0,
        "max_tokens": 4,
        "seed": 7,
        "both_orders": False,
        "extra": None,
    }
    return api.asked(ApiJudge(**{**told, **changes}), "judge")


def judge(answer, /, **changes) -> AskedModel:
    asked = spec(**changes)
    return AskedModel(asked, Scripted(answer), reader(asked.reading))


def shows_apple_first(request: Request) -> bool:
    return said(request).index("apple") < said(request).index("pear")


def prefers_apple(request: Request) -> str:
    return "m" if shows_apple_first(request) else "M"


def test_verdicts_come_back_in_order_and_mirror_when_the_outputs_are_swapped():
    model = judge(prefers_apple)
    assert [v.preference for v in model.compare(PAIRS)] == [1.0] * 40
    asked = {request.key for request in model.asker.asked}
    assert [v.preference for v in model.compare([swapped(p) for p in PAIRS])] == [2.0] * 40
    assert {request.key for request in model.asker.asked} == asked  # the same questions
    assert (
        8 <= sum(map(shows_apple_first, model.asker.asked[:40])) <= 32
    )  # a fair coin, within 3.8 deviations


def test_the_order_belongs_to_the_pair_and_not_to_its_name_or_place():
    model = judge(prefers_apple)
    model.compare(PAIRS)
    before = [request.key for request in model.asker.asked]
    model.asker.asked.clear()
    model.compare([Pair("other", p.instruction, p.input, p.output_1, p.output_2) for p in reversed(PAIRS)])
    assert [request.key for request in model.asker.asked] == before[::-1]


def test_pairs_of_one_instruction_have_coins_of_their_own():
    model = judge(prefers_apple)
    model.compare([Pair("a", "Say.", "", f"apple {i}", f"pear {i}") for i in range(40)])
    assert 8 <= sum(map(shows_apple_first, model.asker.asked)) <= 32


def test_always_the_first_is_a_contradiction_in_both_orders():
    model = judge(lambda request: "m", both_orders=True)
    found = model.compare(PAIRS[:3])
    assert [(v.preference, v.contradicted, v.calls, v.price_usd) for v in found] == [(1.5, True, 2, 1.0)] * 3
    assert len({request.key for request in model.asker.asked}) == 6


def test_both_orders_that_agree_are_no_contradiction():
    found = judge(prefers_apple, both_orders=True).compare([PAIRS[0], swapped(PAIRS[0])])
    assert [(v.preference, v.contradicted) for v in found] == [(1.0, False), (2.0, False)]


def test_probabilities_are_averaged_over_the_orders():
    def answer(request: Request) -> Answer:
        p = 0.9 if shows_apple_first(request) else 0.6  # that the first is the better one
        return Answer("m", [{"m": math.log(p), "M": math.log(1 - p), "The": -9.0}])

    (found,) = judge(answer, answer="logprobs", both_orders=True).compare(PAIRS[:1])
    # Output 1 is better with 0.9, and with 1 - 0.6 where it is shown second.
    assert found.preference == pytest.approx((1.1 + 1.6) / 2)
    assert found.contradicted


def test_equal_outputs_are_a_tie_that_nobody_is_asked_about():
    model = judge(prefers_apple)
    (found,) = model.compare([Pair("a", "Say.", "", "apple pear", "apple pear")])
    assert (found.preference, found.calls, model.asker.asked) == (1.5, 0, [])


def test_failures_are_typed_and_paid_for():
    def answer(request: Request) -> Answer | Failure:
        if "Say 0." in said(request):
            return Failure("refused", "400: too long", price_usd=0.25, calls=2)
        return Answer("They are both good. " * 40, price_usd=0.5, calls=1)

    refused, unparsable = judge(answer).compare(PAIRS[:2])
    assert refused.failure == "refused: 400: too long"
    assert (refused.price_usd, refused.calls, refused.preference) == (0.25, 2, None)
    assert unparsable.failure.startswith("unparsable: no label: 'They are both good. They")
    assert len(unparsable.failure) < 260
    assert unparsable.calls == 1


def test_a_failure_in_one_order_is_a_failure():
    def answer(request: Request) -> str:
        return "m" if shows_apple_first(request) else "neither"

    (found,) = judge(answer, both_orders=True).compare(PAIRS[:1])
    assert (found.preference, found.calls) == (None, 2)
    assert found.failure.startswith("unparsable: ")


@pytest.mark.parametrize(
    ("change", "is_new"),
    [
        ({"model": "another"}, True),
        ({"temperature": 1.0}, True),
        ({"temperature": None}, True),
        ({"max_tokens": 5}, True),
        ({"seed": 8}, True),
        ({"answer": "json"}, True),
        ({"answer": "tool"}, True),
        ({"answer": "logprobs"}, True),
        ({"extra": {"reasoning_effort": "low"}}, True),
        ({}, False),
    ],
)
def test_what_is_asked_depends_on_all_that_changes_the_answer(change, is_new):
    before, after = judge(prefers_apple), judge(prefers_apple, **change)
    for model in (before, after):
        model.asker.answer = lambda request: Failure("empty", "")
        model.compare(PAIRS[:1])
    assert (before.asker.asked[0].key != after.asker.asked[0].key) == is_new


def test_the_request_has_what_the_spec_says():
    model = judge(prefers_apple, answer="json", temperature=None, seed=None, extra={"top_p": 0.5})
    model.asker.answer = lambda request: '{"best": "m"}'
    model.compare(PAIRS[:1])
    (request,) = model.asker.asked
    assert request.model == "some-model"
    assert [message["role"] for message in request.messages] == ["system", "user"]
    assert set(request.parameters) == {"max_tokens", "top_p", "response_format"}
    assert request.parameters["response_format"]["json_schema"]["strict"] is True
    json.dumps(dict(request.parameters))


def test_the_input_stands_behind_the_instruction():
    model = judge(prefers_apple)
    model.compare([Pair("a", "Translate.", "Bonjour", "apple", "pear")])
    assert '"""Translate.\n\nBonjour"""' in said(model.asker.asked[0])


def test_a_process_without_pairs_asks_with_the_others():
    model = judge(prefers_apple)
    calls = []
    model.asker.ask = lambda requests: calls.append(list(requests)) or iter(())
    assert model.compare([]) == []
    assert calls == [[]]
