"""A population of simulated annotators, from the labels that a method trains on to the win rate."""

import json
from collections import Counter

from tests.openai_server import OpenAIServer, said
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


def first_is_better(body: dict) -> str:
    """As each of the paper's 13 annotators wants to be answered, with a line for every pair of the prompt."""
    pairs = 1 + said(body).count("1+1=")  # what fills the other places of a prompt for several
    if "Concise explanation" in said(body):
        line = '{"Output (a) is better": true}'
    else:
        line = "(a)" if "nano" in body["model"] else "Output (a)"
    return "\n".join([line] * pairs)


def test_the_papers_annotators_are_asked_about_half_of_the_pairs_and_later_about_the_rest(perform):
    with OpenAIServer(first_is_better) as server:
        place = [f"api.endpoints.openai.base_url={server.base_url}", "api.endpoints.openai.api_key_env=null"]
        ran = perform("rm", "feedback/judge=p_sim_ann", *place)
        facts = ran.facts("annotate")
        asked = facts["pairs"] - facts["coins"]
        assert facts["failed"] == 0
        assert 10 < asked < 38
        assert ran.result["judge_calls"] == server.counts["received"] == asked
        assert ran.result["price_usd"] > 0
        names = {row["annotator"] for row in pairs(ran)}
        assert "coin" in names
        assert all(name.startswith(("gpt4_", "chatgpt_", "davinci003_")) for name in names - {"coin"})
        assert len(names) > 6
        clean = perform("rm", "feedback/judge=p_sim_ann", "feedback.flip_probability=0.0", *place)
        assert server.counts["received"] == clean.facts("annotate")["pairs"] == facts["pairs"]
    before = {row["id"]: row for row in pairs(ran) if row["annotator"] != "coin"}
    after = {row["id"]: row for row in pairs(clean)}
    assert all(after[row_id] == row for row_id, row in before.items())


def test_a_model_of_this_machine_labels_and_judges(perform, tmp_path):
    """The SFT model itself, asked in few words: it has 128 positions, and what is longer is a failure."""
    weights = perform("sft").artifact("sft")
    prompt = tmp_path / "short.txt"
    prompt.write_text("{instruction}\nm: {output_1}\nM: {output_2}\nBetter:")

    def local(group: str) -> list[str]:
        return [f"{group}/judge=local", f"{group}.judge.path={weights}", f"{group}.judge.prompt={prompt}"]

    ran = perform("rm", *local("feedback"))
    facts = ran.facts("annotate")
    judged = [row["preference"] for row in pairs(ran) if row["annotator"] != "coin"]
    assert len(judged) > 5
    assert all(1 < preference < 2 for preference in judged)
    assert facts["pairs"] + facts["failed"] == 48 - facts["without_a_pair"]
    assert facts["judge"].startswith("local-")
    measured = perform("sft", *local("eval")).result
    assert measured["eval"]["judge"].startswith("local-")
    assert measured["judge_calls"] == 0
