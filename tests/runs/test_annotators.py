"""A population of simulated annotators, from the labels that a method trains on to the win rate."""

import json
from collections import Counter

from tests.runs import farm


def pairs(ran: farm.Ran) -> list[dict[str, object]]:
    return [json.loads(line) for line in (ran.artifact("annotate") / "pairs.jsonl").read_text().splitlines()]


def test_a_pool_with_noise_labels_and_judges(perform):
    asked = ["feedback/judge=pool", "eval/judge=pool", "eval.judge.members.hasty.noise.abstain=0.5"]
    ran = perform("feedme", *asked)
    rows, facts = pairs(ran), ran.facts("annotate")
    counts = Counter(row["annotator"] for row in rows)
    assert set(counts) == {"plain", "hasty", "thorough", "coin"}
    assert facts["coins"] == counts["coin"]
    assert facts["pairs"] == len(rows) == 48 - facts["failed"] - facts["without_a_pair"]
    assert facts["judge"].startswith("pool-of-3-")
    told = ran.result["eval"]
    assert told["judge"].startswith("pool-of-3-")
    assert told["judge"] != facts["judge"]
    assert told["n_total"] < 16
    assert told["n_wins"] + told["n_wins_base"] + told["n_draws"] == told["n_total"]
    assert set(perform("feedme", *asked).states.values()) == {"reused"}


def test_another_noise_labels_anew_and_samples_nothing_anew(perform):
    perform("rm", "feedback/judge=noisy")
    ran = perform("rm", "feedback/judge=noisy", "feedback.judge.members.noisy.noise.flip=0.2")
    assert ran.states["annotate"] == "made"
    assert ran.states["sample pairs"] == "reused"
