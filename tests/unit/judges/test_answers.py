"""What is a verdict and what is not: the whole answer counts, not what can be found in it."""

import math

import pytest

from alpacafarm.judges import alpaca_eval
from alpacafarm.judges.answers import Unparsable, choice, label, logprobs, weighted
from alpacafarm.request import Answer
from alpacafarm.spec.judge import AlpacaEvalJudge

RANKS = "[{'model': 'model_1', 'rank': %d}, {'model': 'model_2', 'rank': %d}]"


@pytest.mark.parametrize(
    ("text", "preference"),
    [("m", 1), ("M", 2), (" M\n", 2), ('"m"', 1), ("`M`", 2), ("**m**.", 1)],
)
def test_a_bare_label(text, preference):
    assert label(Answer(text)) == preference


@pytest.mark.parametrize("text", ["", " ", "m M", "m or M", "The better answer is m.", "m\nM", "mm", "N"])
def test_more_than_a_label_is_none(text):
    with pytest.raises(Unparsable):
        label(Answer(text))


@pytest.mark.parametrize(
    ("text", "preference"),
    [
        ('{"best": "m"}', 1),
        (' {"best":\n"M"}', 2),
        ('```json\n{"best": "M"}\n```', 2),
        ('{"why": "{\\"best\\": \\"m\\"}", "best": "M"}', 2),
    ],
)
def test_a_structured_choice(text, preference):
    assert choice(Answer(text)) == preference


def test_nesting_without_an_end_is_no_choice():
    with pytest.raises(Unparsable):
        choice(Answer("[" * 100_000))


@pytest.mark.parametrize(
    "text",
    [
        "m",
        '{"best": "both"}',
        '{"best": ["m"]}',
        '[{"best": "m"}]',
        '{"best": "m"} {"best": "M"}',
        '{"best": "m", "best": "M"}',
        'I say {"best": "m"}',
        '{"best": "m"',
        "null",
    ],
)
def test_anything_else_is_no_choice(text):
    with pytest.raises(Unparsable):
        choice(Answer(text))


def test_the_weighted_preference_is_alpaca_evals():
    """2 - p(m) / (p(m) + p(M)), also where one label is missing or as good as impossible."""
    assert weighted({"m": math.log(0.6), "M": math.log(0.2), "The": math.log(0.2)}) == pytest.approx(2 - 0.75)
    assert weighted({"m": -0.1}) == 1
    assert weighted({"M": -0.1}) == 2
    assert weighted({"m": 0.0, "M": -9999.0}) == 1
    assert weighted({"m": -9999.0, "M": 0.0}) == 2


def test_without_labels_or_probabilities_there_is_no_preference():
    with pytest.raises(Unparsable, match="neither label"):
        weighted({" m": -0.1, "The": -1.0})
    with pytest.raises(Unparsable, match="not a number"):
        weighted({"m": -0.1, "M": math.nan})
    with pytest.raises(Unparsable, match="set answer=label"):
        logprobs(Answer("m"))


def read(name: str, answer: Answer, pairs: int = 1):
    judge = AlpacaEvalJudge(
        kind="alpaca_eval", name=name, model="some", seed=0, both_orders=False, one_per_prompt=False
    )
    return list(alpaca_eval.parsed(alpaca_eval.asked(judge, "judge").reading)(answer, pairs))


FIVE = "\n\n".join(f"### Which is best for example {i}?\nOutput ({x})" for i, x in enumerate("abbab", 5))


@pytest.mark.parametrize(
    ("name", "text", "preferences"),
    [
        ("alpaca_eval_gpt4", RANKS % (1, 2), [1]),
        ("alpaca_eval_gpt4", RANKS % (2, 1), [2]),
        ("alpaca_eval_gpt4", f"```python\n{RANKS % (2, 1)}\n```", [2]),
        ("chatgpt", "Output (a)", [1]),
        ("chatgpt", "\n Output (b)\n\nIt is shorter.", [2]),
        ("claude", "Output (b)", [2]),
        ("lmsys_gpt4", "7 9\nThe second is better.", [2]),
        ("lmsys_gpt4", "8 8\nBoth are fine.", [1.5]),
        ("alpaca_farm_greedy_gpt4", FIVE, [1, 2, 2, 1, 2]),
        ("alpaca_farm/davinci003_2", "(b)", [2]),
        ("alpaca_farm/davinci003_4", "(a)", [1]),
        ("alpaca_farm/chatgpt_2", '{"Concise explanation": "x", "Output (a) is better": false}', [2]),
        (
            "alpaca_eval_cot_gpt4_turbo_fn",
            '{"concise_explanation": "```json {} ```", "ordered_models": '
            '[{"model": "M", "rank": 1}, {"model": "m", "rank": 2}]}',
            [2],
        ),
        ("chatgpt_fn", '{"best_output": "Output (a)"}', [1]),
    ],
)
def test_what_alpaca_evals_annotators_answer(name, text, preferences):
    assert read(name, Answer(text), len(preferences)) == preferences


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("alpaca_eval_gpt4", ""),
        ("alpaca_eval_gpt4", "model_1 is better"),
        ("alpaca_eval_gpt4", RANKS % (1, 1)),
        ("alpaca_eval_gpt4", RANKS % (3, 1)),
        ("alpaca_eval_gpt4", f"It said {RANKS % (1, 2)}"),
        ("alpaca_eval_gpt4", "[{'model': 'model_1', 'rank': 1}]"),
        ("chatgpt", "Neither."),
        ("chatgpt", "Output (a)\nOutput (b)"),
        ("chatgpt", "The answer says:\nOutput (a)\nbut I do not know."),
        ("lmsys_gpt4", "The scores are\n7 9"),
        ("lmsys_gpt4", "seven nine"),
        ("alpaca_farm_greedy_gpt4", "Output (a)"),
        ("alpaca_farm/chatgpt_2", '{"Concise explanation": "x: true", "Output (a) is better": false}'),
        ("alpaca_eval_cot_gpt4_turbo_fn", '{"concise_explanation": "M"}'),
        ("alpaca_eval_cot_gpt4_turbo_fn", "null"),
    ],
)
def test_what_they_would_not_answer_is_unparsable(name, text):
    with pytest.raises(Unparsable):
        read(name, Answer(text), 5 if name == "alpaca_farm_greedy_gpt4" else 1)


def test_the_probability_of_the_last_token_counts_behind_an_explanation():
    tokens = [{"m": -0.1}, {"M": math.log(0.8), "m": math.log(0.2)}]
    name = "weighted_alpaca_eval_cot_gpt4_turbo"
    assert read(name, Answer("Because. M", tokens)) == [pytest.approx(1.8)]
    assert read("alpaca_eval_clf_cot_gpt4_turbo", Answer("Because. M", tokens)) == [2]
    with pytest.raises(Unparsable, match="does not end"):  # it was cut off
        read(name, Answer("Because the first", tokens))
    with pytest.raises(Unparsable, match="no log-probabilities"):
        read(name, Answer("M"))
