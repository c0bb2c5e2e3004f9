"""The paper's pool on a scripted model: all 13 prompts are asked and read, one pair at a time."""

import pytest

from alpacafarm.annotator.config import judge_spec
from alpacafarm.judges.asked import AskedModel, reader
from alpacafarm.judges.pool import AnnotatorPool
from alpacafarm.judges.settle import settled
from alpacafarm.judges.template import Template
from alpacafarm.request import Request
from alpacafarm.types import Pair
from tests.unit.judges.scripted import Scripted, said

POOL = settled(judge_spec("p_sim_ann", seed=0, model=None))
PAIRS = [Pair(str(i), f"Say {i}.", "", f"apple {i}", f"pear {i}") for i in range(130)]
MODELS = {
    "gpt4": "gpt-4.1-2025-04-14",
    "chatgpt": "gpt-4.1-mini-2025-04-14",
    "davinci003": "gpt-4.1-nano-2025-04-14",
}


def prefers_apple(name: str):
    """Answers in the annotator's format; of the fillers that the first is better."""
    judge = POOL.members[name].judge
    places = Template(judge.template).pairs

    def answer(request: Request) -> str:
        text = said(request)
        choices = ["a" if text.rindex("apple") < text.rindex("pear") else "b"] + ["a"] * (places - 1)
        if ": true" in judge.reading.arguments["outputs_to_match"].values():
            lines = [f'{{"Output (a) is better": {str(choice == "a").lower()}}}' for choice in choices]
        else:
            lines = [("" if name.startswith("davinci") else "Output ") + f"({choice})" for choice in choices]
        return "\n".join(lines)

    return answer


def model(name: str) -> AskedModel:
    judge = POOL.members[name].judge
    return AskedModel(judge, Scripted(prefers_apple(name)), reader(judge.reading))


def test_it_has_the_papers_annotators_with_equal_weights_and_without_noise():
    assert len(POOL.members) == 13
    assert {(member.weight, member.noise) for member in POOL.members.values()} == {(1.0, None)}
    for name, member in POOL.members.items():
        assert member.judge.model == MODELS[name.partition("_")[0]]
        assert member.judge.parameters["temperature"] == 1.0


@pytest.mark.parametrize("name", POOL.members)
def test_every_annotator_is_asked_about_one_pair_and_read(name):
    asked = model(name)
    assert [verdict.preference for verdict in asked.compare(PAIRS[:7])] == [1.0] * 7
    assert len(asked.asker.asked) == 7
    alone = model(name)
    alone.compare(PAIRS[3:4])
    assert alone.asker.asked[0].key in {request.key for request in asked.asker.asked}


def test_the_pool_shares_the_pairs_out_among_all():
    judges = {name: model(name) for name in POOL.members}
    found = AnnotatorPool(POOL, judges, seed=0).compare(PAIRS)
    assert {verdict.annotator for verdict in found} == set(POOL.members)
    assert {verdict.preference for verdict in found} == {1.0}
    assert sum(verdict.calls for verdict in found) == len(PAIRS)


def test_other_models_are_a_few_keys():
    raw = judge_spec("p_sim_ann", seed=0, model=None)
    assert "models" not in raw.canonical()
    assert raw.models.keys() == {"strong", "medium", "small"}
