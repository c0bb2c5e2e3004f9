"""The annotator on a local server that speaks the OpenAI API."""

import pytest

from alpacafarm import PairwiseAutoAnnotator
from alpacafarm.errors import BudgetError, JudgeError, SpecError
from tests.openai_server import OpenAIServer, Reply, said

ROWS = [
    {
        "instruction": f"do {i}",
        "input": "now" if i % 2 else "",
        "output_1": f"good-{i}",
        "output_2": f"bad-{i}",
    }
    for i in range(6)
]


def ranked(body):
    """As alpaca_eval_gpt4 asks: the models ordered by rank, the one with the good answer first."""
    text = said(body)
    best, other = (
        ("model_1", "model_2") if text.index("good-") < text.index("bad-") else ("model_2", "model_1")
    )
    return f"[{{'model': '{best}', 'rank': 1}}, {{'model': '{other}', 'rank': 2}}]"


def first_or_second(body):
    """As the prompt `pairwise` asks."""
    return "m" if said(body).index("good-") < said(body).index("bad-") else "M"


def api(server, *, free=False):
    endpoint = {"base_url": server.base_url, "free": free, "tries": 2}
    return {"prices": None, "endpoints": {"here": endpoint}}


def test_the_default_is_alpaca_evals_gpt4_annotator_and_is_paid_for_once(tmp_path):
    with OpenAIServer(ranked) as server:
        asked = [
            PairwiseAutoAnnotator(store=tmp_path, api=api(server)).annotate_pairs(ROWS) for _ in range(2)
        ]
    assert server.counts["received"] == len(ROWS)
    assert {body["model"] for body in server.requests} == {"gpt-4"}
    assert [row["preference"] for row in asked[0]] == [1.0] * 6
    assert all(row["price_per_example"] > 0 for row in asked[0])
    assert all(row["price_per_example"] == 0 for row in asked[1])
    assert {row["annotator"] for row in asked[0]} == {"alpaca_eval_gpt4"}
    assert any("do 1\n\nnow" in said(body) for body in server.requests)  # merged, as alpaca-eval does


@pytest.mark.parametrize("preset", ["p_sim_ann", "p_sim_gpt4", "alpaca_eval"])
def test_the_papers_annotators_are_presets(tmp_path, preset):
    with OpenAIServer(lambda body: "I cannot tell.") as server:
        annotator = PairwiseAutoAnnotator(preset, store=tmp_path, api=api(server))
        with pytest.warns(UserWarning, match="unparsable"):
            assert annotator.annotate_pairs(ROWS) == []
    assert server.counts["answered"] >= 6
    assert {body["model"] for body in server.requests} <= {
        "gpt-4.1-2025-04-14",
        "gpt-4.1-mini-2025-04-14",
        "gpt-4.1-nano-2025-04-14",
        "gpt-4o-2024-08-06",
    }


def test_coins_are_never_sent(tmp_path):
    with OpenAIServer(ranked) as server:
        annotator = PairwiseAutoAnnotator(store=tmp_path, api=api(server), p_label_flip=0.25)
        found = annotator.annotate_pairs(ROWS)
    coins = [row for row in found if row["annotator"] == "coin"]
    assert 0 < len(coins) < 6
    assert server.counts["received"] == 6 - len(coins)


def test_another_model_is_asked_anew_and_the_budget_is_kept(tmp_path):
    with OpenAIServer(ranked) as server:
        PairwiseAutoAnnotator(store=tmp_path, api=api(server)).annotate_pairs(ROWS)
        other = PairwiseAutoAnnotator(store=tmp_path, api=api(server), model="gpt-4o", max_calls=4)
        with pytest.raises(BudgetError, match=r"budget\.max_calls=4"):
            other.annotate_pairs(ROWS)
    assert server.counts["received"] == 10


def test_a_pool_of_two_models_names_who_judged(tmp_path):
    judge = {
        "kind": "api",
        "prompt": "pairwise",
        "answer": "label",
        "temperature": 0.0,
        "max_tokens": 8,
        "seed": None,
        "both_orders": False,
        "extra": None,
    }
    members = {
        name: {"weight": 1.0, "noise": None, "judge": {**judge, "model": model}}
        for name, model in [("large", "one"), ("small", "two")]
    }
    with OpenAIServer(first_or_second) as server:
        annotator = PairwiseAutoAnnotator(
            {"kind": "pool", "members": members}, store=tmp_path, api=api(server, free=True)
        )
        found = annotator.annotate_pairs([row | {"output_1": f"good-{i}"} for i, row in enumerate(ROWS * 4)])
    assert {row["annotator"] for row in found} == {"large", "small"}
    assert {body["model"] for body in server.requests} == {"one", "two"}
    assert [row["preference"] for row in found] == [1.0] * 24


def test_a_refused_request_is_a_failure_with_its_reason(tmp_path):
    def refuse_one(body):
        return Reply(status=400, error={"message": "no"}) if "do 3" in said(body) else ranked(body)

    with OpenAIServer(refuse_one) as server:
        annotator = PairwiseAutoAnnotator(store=tmp_path, api=api(server))
        with pytest.warns(UserWarning, match=r"^1 rows without a preference \(1 refused\)"):
            assert len(annotator.annotate_pairs(ROWS)) == 5
    assert annotator.failures[0].row == ROWS[3]


def test_a_missing_key_is_told_before_anything_is_sent(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(JudgeError, match=r"needs a key, .* set the environment variable OPENAI_API_KEY"):
        PairwiseAutoAnnotator(store=tmp_path).annotate_pairs(ROWS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"annotators_config": "noisy", "model": "x"},
            r"^model=x: a judge of kind pool has no such key; leave",
        ),
        ({"api": "here"}, r"^api=here: there is no such preset and no such file; .*known: .*openai"),
        ({"api": {"prices": None}}, r"^api\.endpoints is missing"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    with pytest.raises(SpecError, match=said):
        PairwiseAutoAnnotator(**arguments)
