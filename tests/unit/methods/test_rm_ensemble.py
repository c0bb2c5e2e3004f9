"""The ensemble: members that differ in their draws alone, and the combined score wherever one scores."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from alpacafarm.artifacts import ensemble
from alpacafarm.data.rows import read_rows
from alpacafarm.errors import ArtifactError
from alpacafarm.methods import ppo, rm, rm_ensemble
from alpacafarm.models.load import reward_from_policy
from alpacafarm.ports import Artifact
from alpacafarm.rollout.onpolicy import draw
from alpacafarm.spec.judge import RewardJudge
from alpacafarm.stage import Kind
from alpacafarm.training.batches import step_rows
from alpacafarm.types import Pair, Preference, ScoredPair
from tests.unit.methods import test_ppo
from tests.unit.methods.conftest import Tiny, make, optim
from tests.unit.methods.test_rm import MEASUREMENTS, judged, label_cost, score, spec, tokens

COMBINATIONS = [("mean", None), ("min", None), ("mean_minus_std", 0.5)]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tiny, list[Artifact]]:
    """Two trained members and what they were trained on."""
    tiny = make(tmp_path_factory.mktemp("members"))
    given = judged(tiny, copies=2)
    settings = spec(optim=optim(1e-2, 16))
    contexts = [tiny.context("rm"), tiny.context("rm member 1")]
    rm.train(settings, given, contexts[0])
    second = rm_ensemble.MemberSpec.model_validate({**settings.canonical(), "member": 1})
    rm_ensemble.train_member(second, given, contexts[1])
    for ctx in contexts:
        ctx.track.close()
    return tiny, [Artifact(ctx.out, Kind.REWARD, ctx.name, ctx.facts) for ctx in contexts]


@pytest.fixture
def together(members, request, tmp_path: Path) -> Artifact:
    """The members combined in the way that the test asks for, else by their minimum."""
    tiny, trained = members
    combine, std_coef = getattr(request, "param", ("min", None))
    ctx = replace(tiny, home=tmp_path).context("rm_ensemble")
    inputs = {f"member_{number}": member for number, member in enumerate(trained)}
    rm_ensemble.combine(rm_ensemble.CombineSpec(combine=combine, std_coef=std_coef), inputs, ctx)
    return Artifact(ctx.out, Kind.REWARD, "ensemble", ctx.facts)


def measured(artifact: Artifact) -> list[ScoredPair]:
    return read_rows(artifact.path / "measured.jsonl", ScoredPair)


def first_step(artifact: Artifact) -> dict[str, float]:
    return json.loads((artifact.path / "log.jsonl").read_text().splitlines()[0])


def test_members_differ_in_head_and_order_and_are_measured_on_the_same_pairs(members):
    one, two = members[1]
    assert [p.id for p in measured(one)] == [p.id for p in measured(two)]
    assert first_step(one)["loss"] != first_step(two)["loss"]
    assert [p.score_1 for p in measured(one)] != [p.score_1 for p in measured(two)]


@pytest.mark.parametrize("seed", [1, 2])
def test_head_and_order_are_drawn_from_the_seed_of_the_member(members, tmp_path, seed):
    """At a learning rate of zero every batch costs what its pairs cost the model at its start."""
    tiny, _ = members
    given = {"init": tiny.policy, "pairs": Artifact(tiny.home / "pairs", Kind.PAIRS, "pairs")}
    ctx = replace(tiny, home=tmp_path).context("still")
    rm.train_from(spec(optim=optim(0.0, 4)), given, ctx, seed=seed)
    ctx.track.close()
    pairs = read_rows(tiny.home / "pairs" / "pairs.jsonl", Preference)
    _, used = rm.split_off(pairs, 4, ctx.seed)
    start = reward_from_policy(tiny.policy.path, seed)
    costs = [label_cost(start, tiny, pairs[place]) for place in used]
    expected = [
        sum(costs[i] for i in rows) / len(rows)
        for rows in step_rows(len(used), batch_size=4, epochs=1, seed=seed)
    ]
    logged = [json.loads(line)["loss"] for line in (ctx.out / "log.jsonl").read_text().splitlines()]
    assert logged == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("together", COMBINATIONS, indirect=True)
def test_combined_scores_are_those_of_the_members_brought_to_one_mean(members, together):
    scores_MPS = torch.tensor(
        [[[p.score_1, p.score_2] for p in measured(m)] for m in members[1]], dtype=torch.float64
    )
    aligned = scores_MPS - scores_MPS.mean((1, 2), keepdim=True) + scores_MPS.mean()
    deviation = (aligned[0] - aligned[1]).abs() / 2
    expected = {
        "mean": aligned.mean(0),
        "min": aligned.amin(0),
        "mean_minus_std": aligned.mean(0) - 0.5 * deviation,
    }[together.facts["combine"]]
    found = torch.tensor([[p.score_1, p.score_2] for p in measured(together)], dtype=torch.float64)
    torch.testing.assert_close(found, expected)
    assert {k: together.facts[k] for k in MEASUREMENTS} == rm.measurements(measured(together), held_out=4)
    assert (together.facts["members"], together.facts["end_with_eos"]) == (2, True)


def test_a_member_that_diverged_is_named(members, tmp_path):
    tiny, (good, other) = members
    diverged = replace(other, facts={**other.facts, "reward_mean": None})
    settings = rm_ensemble.CombineSpec(combine="mean", std_coef=None)
    ctx = replace(tiny, home=tmp_path).context("diverged")
    with pytest.raises(ArtifactError, match=r"^member 1 .* no numbers: its training diverged; lower .*lr"):
        rm_ensemble.combine(settings, {"member_0": good, "member_1": diverged}, ctx)


@pytest.mark.parametrize("together", COMBINATIONS, indirect=True)
def test_a_scorer_gives_what_was_measured(members, together):
    tiny, _ = members
    pairs = {p.id: p for p in read_rows(tiny.home / "pairs" / "pairs.jsonl", Preference)}
    rows = [row for p in measured(together) for row in tokens(tiny, pairs[p.id])]
    ctx = replace(tiny, home=together.path.parent).context("score")
    found = ctx.scorer(together, vocabulary=ctx.vocabulary(tiny.policy)).score(rows)
    expected = [s for p in measured(together) for s in (p.score_1, p.score_2)]
    assert found == pytest.approx(expected, abs=1e-5)


def test_the_judge_reads_the_combined_score(members, together):
    tiny, _ = members
    ctx = replace(tiny, home=together.path.parent).context("judge")
    judge = ctx.judge(RewardJudge(kind="reward", soft=True), {"reward": together})
    pairs = {p.id: p for p in read_rows(tiny.home / "pairs" / "pairs.jsonl", Preference)}
    asked = [pairs[p.id] for p in measured(together)]
    verdicts = judge.compare([Pair(p.id, p.instruction, p.input, p.output_1, p.output_2) for p in asked])
    leads = torch.tensor([p.score_2 - p.score_1 for p in measured(together)], dtype=torch.float64)
    # Training cuts answers at 16 tokens and the judge does not: those that were cut are another matter.
    whole = [max(p.tokens_1, p.tokens_2) < 16 for p in measured(together)]
    found = [v.preference for v, is_whole in zip(verdicts, whole, strict=True) if is_whole]
    assert found == pytest.approx((1 + torch.sigmoid(leads[torch.tensor(whole)])).tolist(), abs=1e-5)


def test_the_folder_loads_as_its_first_member(members, together):
    tiny, trained = members
    pairs = {p.id: p for p in read_rows(tiny.home / "pairs" / "pairs.jsonl", Preference)}
    model = AutoModelForSequenceClassification.from_pretrained(together.path / "model")
    for number, member in enumerate(trained):
        loaded = AutoModelForSequenceClassification.from_pretrained(ensemble.member(together.path, number))
        row = tokens(tiny, pairs[measured(member)[0].id])[0]
        assert score(loaded, row) == pytest.approx(measured(member)[0].score_1, abs=1e-5)
        assert (score(model, row) == score(loaded, row)) == (number == 0)


def test_ppo_is_rewarded_with_the_combined_score(members, together):
    tiny, _ = members
    ctx = replace(tiny, home=together.path.parent).context("ppo")
    policy = ctx.trainable(tiny.policy, optim(1e-2, 8), head="actor_critic", critic=together)
    settings = test_ppo.spec(missing_eos_penalty=0.0)
    inputs = {"init": tiny.policy, "reward": together, "rows": tiny.rows}
    collector = ppo.Collector(settings, inputs, ctx, policy)
    rollouts, _ = collector.rollouts(0)
    drawn = draw(policy, collector.prompts, settings.sampling, ctx, step=0, rollouts=16)
    of_members = [
        ctx.scorer(replace(together, path=ensemble.member(together.path, number))).score(drawn.rows)
        for number in range(2)
    ]
    found = ensemble.read(together.path)
    assert found is not None
    assert rollouts.raw == found(of_members)
    standardised = (torch.tensor(rollouts.raw) - together.facts["reward_mean"]) / together.facts["reward_std"]
    torch.testing.assert_close(rollouts.score_B, standardised)
    first = AutoModelForSequenceClassification.from_pretrained(together.path / "model")
    critic = policy.module.value  # starts from the first member
    torch.testing.assert_close(critic.model.embed_tokens.weight, first.model.embed_tokens.weight)
