"""The reward model: what ties and soft labels cost, and what is measured on held-out pairs."""

import json
import math
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from alpacafarm.data.rows import read_rows, write_rows
from alpacafarm.methods import rm
from alpacafarm.models.load import reward_from_policy
from alpacafarm.pipeline.context import StageContext
from alpacafarm.ports import Artifact
from alpacafarm.stage import Kind
from alpacafarm.stats.calibration import expected_calibration_error
from alpacafarm.stats.rank import spearman
from alpacafarm.text.collate import Tokens, scored
from alpacafarm.text.tokenise import encode_rows, fit
from alpacafarm.types import Example, Preference, ScoredPair
from tests.unit.methods.conftest import MODEL, Tiny, optim

LABELS = (1.0, 2.0, 1.5, 1.25, 1.875)  # a plain one of each kind, a tie, two soft ones


def spec(**changes: object) -> rm.Spec:
    values = {"name": "rm", "epochs": 1, "held_out": 4, "end_with_eos": True, "optim": optim(1e-2, 8)}
    return rm.Spec.model_validate({**values, **changes})


def judged(tiny: Tiny, labels: tuple[float, ...] = LABELS, copies: int = 1) -> dict[str, Artifact]:
    """Pairs of answers to different questions, `labels` taken in turn."""
    rows = read_rows(tiny.rows.path / "rows.jsonl", Example)
    pairs = [
        Preference(
            f"{a.id}-{copy}", a.instruction, a.input, a.output, b.output, labels[i % len(labels)], "test"
        )
        for copy in range(copies)
        for i, (a, b) in enumerate(zip(rows, [*rows[1:], rows[0]], strict=True))
    ]
    write_rows(tiny.home / "pairs" / "pairs.jsonl", pairs)
    return {"init": tiny.policy, "pairs": Artifact(tiny.home / "pairs", Kind.PAIRS, "pairs")}


def tokens(tiny: Tiny, pair: Preference) -> list[Tokens]:
    """Both sides as the reward model reads them."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.policy.path)
    sides = [Example("", pair.instruction, pair.input, output) for output in (pair.output_1, pair.output_2)]
    rows = fit(encode_rows(tokenizer, MODEL.prompt, sides), max_prompt_tokens=96, max_response_tokens=16).rows
    return [scored(row, tokenizer.eos_token_id, with_eos=True) for row in rows]


def score(model: torch.nn.Module, row: Tokens) -> float:
    """By transformers' own forward, a row at a time and in float64."""
    with torch.no_grad():
        return float(model.double()(torch.tensor([row.prompt + row.response])).logits.item())


def label_cost(model: torch.nn.Module, tiny: Tiny, pair: Preference) -> float:
    """Cross-entropy of the Bradley-Terry probability with the label, in nats."""
    score_1, score_2 = (score(model, row) for row in tokens(tiny, pair))
    p, q = pair.preference - 1, 1 / (1 + math.exp(score_1 - score_2))
    return -p * math.log(q) - (1 - p) * math.log(1 - q)


def trained(tiny: Tiny, name: str, settings: rm.Spec, given: dict[str, Artifact]) -> StageContext:
    ctx = tiny.context(name)
    rm.train(settings, given, ctx)
    ctx.track.close()
    return ctx


def test_first_loss_is_the_cross_entropy_with_each_label_as_a_probability(tiny: Tiny):
    given = judged(tiny)
    ctx = trained(tiny, "first", spec(held_out=0, optim=optim(1e-3, 24)), given)
    start = reward_from_policy(tiny.policy.path, ctx.seed)
    pairs = read_rows(given["pairs"].path / "pairs.jsonl", Preference)
    costs = [label_cost(start, tiny, pair) for pair in pairs]
    logged = json.loads((ctx.out / "log.jsonl").read_text().splitlines()[0])
    assert len(costs) == 24
    assert logged["loss"] == pytest.approx(sum(costs) / 24, rel=1e-5)


def test_training_on_a_soft_label_ends_at_its_log_odds(tiny: Tiny):
    """Every pair is preferred with probability 0.8 in one direction: the lead becomes log 4."""
    given = judged(tiny, (1.2,))
    ctx = trained(tiny, "soft", spec(held_out=0, epochs=60, optim=optim(3e-3, 24)), given)
    leads = [p.score_1 - p.score_2 for p in read_rows(ctx.out / "measured.jsonl", ScoredPair)]
    assert sum(leads) / len(leads) == pytest.approx(math.log(4), abs=0.15)  # training has not ended


def test_measured_pairs_are_scored_as_transformers_scores_the_exported_model(tiny: Tiny):
    given = judged(tiny, copies=2)
    ctx = trained(tiny, "measured", spec(), given)
    model = AutoModelForSequenceClassification.from_pretrained(ctx.out / "model")
    pairs = {p.id: p for p in read_rows(given["pairs"].path / "pairs.jsonl", Preference)}
    measured = read_rows(ctx.out / "measured.jsonl", ScoredPair)
    assert len({row.id for row in measured}) == len(measured) == ctx.facts["held_out"] == 4
    for row in measured:
        one, two = tokens(tiny, pairs[row.id])
        assert (row.score_1, row.score_2) == pytest.approx((score(model, one), score(model, two)), abs=1e-5)
        assert (row.tokens_1, row.tokens_2) == (len(one.response), len(two.response))
        assert row.preference == pairs[row.id].preference
    assert {k: ctx.facts[k] for k in MEASUREMENTS} == rm.measurements(measured, held_out=4)


def test_nothing_is_claimed_of_pairs_that_were_trained_on(tiny: Tiny):
    ctx = trained(tiny, "none", spec(held_out=0), judged(tiny))
    assert (ctx.facts["held_out"], ctx.facts["accuracy"], ctx.facts["ece"]) == (0, None, None)
    assert ctx.facts["reward_std"] > 0
    assert len(read_rows(ctx.out / "measured.jsonl", ScoredPair)) == 24


MEASUREMENTS = ("held_out", "accuracy", "ece", "length_correlation", "reward_mean", "reward_std")
PAIRS = [
    ScoredPair("a", 1.0, 2.0, -1.0, 9, 3),  # right
    ScoredPair("b", 2.0, 0.5, 1.5, 4, 8),  # right
    ScoredPair("c", 2.0, 3.0, 0.0, 12, 2),  # wrong
    ScoredPair("d", 1.25, 1.0, 1.0, 5, 6),  # undecided
    ScoredPair("e", 1.5, 2.5, 0.0, 10, 1),  # a tie
]


def test_measurements_are_those_of_their_definitions():
    found = rm.measurements(PAIRS, held_out=5)
    scores = torch.tensor([[p.score_1, p.score_2] for p in PAIRS], dtype=torch.float64)
    lengths = [count for p in PAIRS for count in (p.tokens_1, p.tokens_2)]
    told = torch.sigmoid(scores[:, 1] - scores[:, 0]).tolist()
    assert found["accuracy"] == pytest.approx(100 * 2.5 / 4)
    assert found["ece"] == pytest.approx(
        100 * expected_calibration_error(told, [p.preference - 1 for p in PAIRS], bins=10)
    )
    assert found["length_correlation"] == pytest.approx(spearman(scores.flatten().tolist(), lengths))
    assert found["reward_mean"] == pytest.approx(scores.mean().item())
    assert found["reward_std"] == pytest.approx(scores.std().item())
    assert tuple(found) == MEASUREMENTS


def test_measurements_do_not_depend_on_the_order_of_pairs_or_sides():
    turned = [
        ScoredPair(p.id, 3 - p.preference, p.score_2, p.score_1, p.tokens_2, p.tokens_1) for p in PAIRS[::-1]
    ]
    assert rm.measurements(turned, held_out=5) == pytest.approx(rm.measurements(PAIRS, held_out=5))


def test_a_score_that_is_the_length_correlates_with_it_fully():
    same = [replace(p, score_1=float(p.tokens_1), score_2=float(p.tokens_2)) for p in PAIRS]
    opposite = [replace(p, score_1=-float(p.tokens_1), score_2=-float(p.tokens_2)) for p in PAIRS]
    assert rm.measurements(same, held_out=5)["length_correlation"] == pytest.approx(1)
    assert rm.measurements(opposite, held_out=5)["length_correlation"] == pytest.approx(-1)


def test_ties_alone_have_no_accuracy():
    assert rm.accuracy([PAIRS[-1]]) is None


def test_a_model_that_diverged_is_measured_as_not_a_number():
    found = rm.measurements([replace(p, score_2=math.nan) for p in PAIRS], held_out=5)
    assert math.isnan(found["reward_mean"])
    assert math.isnan(found["reward_std"])
