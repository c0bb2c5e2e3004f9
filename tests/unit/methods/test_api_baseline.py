"""A model behind an API as a policy: what it is asked, and what an instruction without an answer does."""

import json
from dataclasses import dataclass, field

import pytest
from pydantic import ValidationError

from alpacafarm.data.rows import read_outputs, write_rows
from alpacafarm.errors import JudgeError
from alpacafarm.methods import api_baseline
from alpacafarm.ports import Artifact
from alpacafarm.request import Answer, Failure, Request
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Kind
from alpacafarm.types import Example

ROWS = [
    Example("a", "Name a colour."),
    Example("b", "Sum up.", "It rains.", dataset="koala"),
    Example("c", "?"),
]


def spec(**changes):
    values = {
        "api_model": "gpt-x",
        "interface": "chat",
        "system": "Be brief.",
        "template": "plain",
        "sampling": Sampling(temperature=0.7, top_p=1.0, top_k=0, max_new_tokens=300),
        "no_answer": "stop",
    }
    return api_baseline.AskSpec(**values | changes)


@dataclass
class Told:
    """A context whose model answers `texts`; None stands for a refusal. Later rows are answered first."""

    out: object
    texts: list
    seed: int = 5
    asked: list[Request] = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    cost: dict = field(default_factory=dict)

    def asker(self, label):
        assert label == "gpt-x"
        return self

    def ask(self, requests):
        self.asked = list(requests)
        for place in reversed(range(len(self.asked))):
            text = self.texts[place]
            failed = Failure("refused", "content filter", price_usd=0.5, calls=1)
            yield place, failed if text is None else Answer(text, None, "stop", 9, 4, 1.0, 1)

    def progress(self, total, label):
        return self

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        return None

    def advance(self, done):
        pass

    def record(self, **facts):
        self.facts |= facts

    def spend(self, **cost):
        self.cost |= cost


@pytest.fixture
def inputs(tmp_path):
    write_rows(tmp_path / "rows" / "rows.jsonl", ROWS)
    return {"rows": Artifact(tmp_path / "rows", Kind.ROWS, "rows")}


def test_answers_stand_in_row_order_with_their_price(tmp_path, inputs):
    ctx = Told(tmp_path, [" red ", "wet", "!"])
    api_baseline.ask(spec(), inputs, ctx)
    outputs = read_outputs(tmp_path / "outputs.json")
    assert [(o.id, o.output, o.generator, o.dataset, o.tokens) for o in outputs] == [
        ("a", "red", "gpt-x", "", 4),
        ("b", "wet", "gpt-x", "koala", 4),
        ("c", "!", "gpt-x", "", 4),
    ]
    assert ctx.cost == {"judge_calls": 3, "price_usd": 3.0}
    assert [r.messages[1]["content"] for r in ctx.asked] == ["Name a colour.", "Sum up.\n\nIt rains.", "?"]
    assert ctx.asked[0].messages[0] == {"role": "system", "content": "Be brief."}
    assert dict(ctx.asked[0].parameters) == {"temperature": 0.7, "max_tokens": 300}


def test_another_seed_asks_again_and_the_same_does_not():
    keys = {seed: [r.key for r in api_baseline.requests(spec(), ROWS, seed)] for seed in (1, 2)}
    assert keys[1] == [r.key for r in api_baseline.requests(spec(), ROWS, 1)]
    assert not {*keys[1]} & {*keys[2]}


def test_a_completion_is_the_text_that_trained_policies_read():
    settings = spec(interface="completion", system=None, template="alpaca")
    first, second, _ = api_baseline.requests(settings, ROWS, 1)
    assert first.messages == ()
    assert first.prompt.endswith("### Instruction:\nName a colour.\n\n### Response:")
    assert "### Input:\nIt rains.\n\n### Response:" in second.prompt


def test_a_missing_answer_stops_it_or_is_empty_where_asked_for(tmp_path, inputs):
    ctx = Told(tmp_path, ["red", None, "!"])
    with pytest.raises(
        JudgeError, match=r"no answer to 1 of 3 instructions; b: refused: content filter; the"
    ):
        api_baseline.ask(spec(), inputs, ctx)
    assert not (tmp_path / "outputs.json").exists()
    api_baseline.ask(spec(no_answer="empty"), inputs, ctx)
    assert [o.output for o in read_outputs(tmp_path / "outputs.json")] == ["red", "", "!"]
    assert ctx.facts == {"failed": 1, "failures": {"refused": 1}}
    assert ctx.cost == {"judge_calls": 3, "price_usd": 2.5}
    assert json.dumps(ctx.facts)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"interface": "completion"}, "a completion has no system message"),
        ({"sampling": Sampling(temperature=1, top_p=1, top_k=5, max_new_tokens=9)}, "no such parameter"),
    ],
)
def test_what_the_api_does_not_take_is_refused(changes, told):
    with pytest.raises(ValidationError, match=told):
        api_baseline.Spec(name="api_baseline", split="eval", **spec(**changes).canonical())
