"""A step's samples: which prompts, in which groups, on which rank, cut and measured how."""

from pathlib import Path

import pytest
import torch

from alpacafarm.data.rows import read_rows, write_rows
from alpacafarm.engine.single import SingleProcess
from alpacafarm.errors import ArtifactError, SpecError
from alpacafarm.ports import Artifact, Context
from alpacafarm.rollout.onpolicy import (
    Responses,
    Scale,
    draw,
    fitting_prompts,
    measured,
    minibatches,
    over_epochs,
    prefixed,
    prompt_indices,
    response_mask,
    standardisation,
)
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Kind
from alpacafarm.text.collate import Tokens
from alpacafarm.text.tokenise import encode_prompts
from alpacafarm.types import Example
from tests.unit.methods.conftest import MODEL, Tiny, make

SAMPLING = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=8)


class RankOf(SingleProcess):
    """One of several ranks, for what needs nothing from the others."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world = rank, world


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return make(tmp_path)


def drawn(tiny: Tiny, name: str, rank: int = 0, world: int = 1, **asked) -> tuple[Responses, Context]:
    ctx = tiny.context(name, dist=RankOf(rank, world))
    prompts = fitting_prompts(tiny.rows, tiny.policy, ctx)
    asked = {"step": 3, "rollouts": 24, "samples_per_prompt": 3, **asked}
    return draw(ctx.frozen(tiny.policy), prompts, SAMPLING, ctx, **asked), ctx


def test_a_prompts_responses_are_neighbours_and_differ(tiny: Tiny):
    found, _ = drawn(tiny, "groups")
    assert [found.places[i] for i in range(24)] == [found.places[i // 3 * 3] for i in range(24)]
    assert len(set(found.places)) == 8
    responses = [row.response for row in found.rows]
    assert len(set(responses)) > 20


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_draw_together_what_one_draws_alone(tiny: Tiny, world: int):
    whole, _ = drawn(tiny, "one")
    shares = [drawn(tiny, f"of{rank}", rank, world)[0] for rank in range(world)]
    for group in range(8):
        share = shares[group % world]
        at = group // world * 3
        assert share.rows[at : at + 3] == whole.rows[group * 3 : group * 3 + 3]
        assert share.ended[at : at + 3] == whole.ended[group * 3 : group * 3 + 3]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_minibatch_has_the_same_rows_on_any_number_of_ranks(tiny: Tiny, world: int):
    rows = set()
    for rank in range(world):
        found, ctx = drawn(tiny, f"r{rank}", rank, world)
        first = minibatches(found.rows, batch_size=12, pad_id=0, ctx=ctx)[0]
        assert all(len(part) <= ctx.micro_batch for part in first.indices)
        rows |= {found.rows[i] for part in first.indices for i in part}
    whole, _ = drawn(tiny, "whole")
    assert rows == set(whole.rows[:12])


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_group_shares_a_micro_batch(tiny: Tiny, world: int):
    """It holds the first of each group, then the second; nothing is left out."""
    seen = []
    for rank in range(world):
        found, ctx = drawn(tiny, f"r{rank}", rank, world, samples_per_prompt=2)
        for minibatch in minibatches(found.rows, batch_size=8, pad_id=0, ctx=ctx, group=2):
            for part in minibatch.indices:
                first, second = part[: len(part) // 2], part[len(part) // 2 :]
                assert len(first) <= ctx.micro_batch
                assert [i % 2 for i in first] == [0] * len(first)
                assert [i + 1 for i in first] == second
                seen += [found.rows[i] for i in part]
    whole, _ = drawn(tiny, "whole", samples_per_prompt=2)
    assert sorted(seen, key=str) == sorted(whole.rows, key=str)


def test_a_prefix_is_sampled_after_and_not_scored(tiny: Tiny, monkeypatch):
    ctx = tiny.context("prefix")
    prompts = fitting_prompts(tiny.rows, tiny.policy, ctx)
    asked = []
    sample = ctx.sample
    monkeypatch.setattr(
        ctx, "sample", lambda m, p, *rest, **kw: (asked.extend(p), sample(m, p, *rest, **kw))[1]
    )
    found = draw(ctx.frozen(tiny.policy), prompts, SAMPLING, ctx, step=0, rollouts=4, prefix=(7, 8))
    assert [row.prompt for row in found.rows] == [prompts.ids[i] for i in found.places]
    assert asked == [prefixed(row.prompt, (7, 8), prompts.bos_id) for row in found.rows]
    assert asked != [row.prompt for row in found.rows]


@pytest.mark.parametrize("style", ["alpaca", "short"])
def test_a_prefix_stands_where_the_encoding_has_it(tiny: Tiny, style):
    tokenizer = tiny.context("where").tokenizer(tiny.policy)
    (plain,) = encode_prompts(tokenizer, style, [("Say hi.", "now")])
    (expected,) = encode_prompts(tokenizer, style, [("Say hi.", "now")], prefix="</s></s>")
    end = tokenizer.eos_token_id
    assert prefixed(plain, (end, end), tokenizer.bos_token_id) == expected


def test_long_prompts_are_left_out_and_counted(tiny: Tiny):
    rows = read_rows(tiny.rows.path / "rows.jsonl", Example)
    write_rows(tiny.rows.path / "rows.jsonl", [*rows, Example("long", "word " * 300)])
    ctx = tiny.context("long")
    prompts = fitting_prompts(tiny.rows, tiny.policy, ctx)
    assert ctx.facts["dropped_prompts"] == 1
    assert [row.id for row in prompts.rows] == [row.id for row in rows]
    longest = max(map(len, prompts.ids))
    ctx = tiny.context("room", model=MODEL.model_copy(update={"max_prompt_tokens": longest}))
    fitting_prompts(tiny.rows, tiny.policy, ctx, room=1)
    assert ctx.facts["dropped_prompts"] >= 2


def test_no_fitting_prompt_is_refused(tiny: Tiny):
    ctx = tiny.context("none", model=MODEL.model_copy(update={"max_prompt_tokens": 4}))
    with pytest.raises(
        SpecError, match=r"^model\.max_prompt_tokens=4: every prompt .* longer; set it to \d+"
    ):
        fitting_prompts(tiny.rows, tiny.policy, ctx)


def test_what_is_measured_is_what_each_row_has_alone(tiny: Tiny):
    found, ctx = drawn(tiny, "measured")
    policy = ctx.frozen(tiny.policy)
    batches = minibatches(found.rows, batch_size=12, pad_id=0, ctx=ctx)
    together = measured(policy, batches, ["logprob_BT"], temperature=0.7)["logprob_BT"]
    torch.testing.assert_close(together, ctx.logprobs(policy, found.rows, 0.7))
    mask = response_mask(batches)
    assert mask.sum(1).tolist() == [len(row.response) for row in found.rows]
    assert not together[~mask].any()


def test_prompts_are_permutations_one_after_the_other():
    taken = [i for step in range(6) for i in prompt_indices(9, step, 3, seed=0)]
    assert sorted(taken[:9]) == list(range(9))
    assert sorted(taken[9:]) == list(range(9))
    assert taken[:9] != taken[9:]


def test_more_rollouts_than_prompts_take_some_twice():
    assert len(prompt_indices(2, 0, 5, seed=0)) == 5


def test_every_minibatch_comes_once_an_epoch():
    order = over_epochs(5, 3, step=1, seed=0)
    assert [sorted(order[i : i + 5]) for i in (0, 5, 10)] == [list(range(5))] * 3
    assert order != over_epochs(5, 3, step=2, seed=0)


def reward(**facts) -> Artifact:
    return Artifact(Path("reward"), Kind.REWARD, "key", facts)


def test_raw_scores_need_no_record_of_the_reward_model():
    assert standardisation(reward(), None) == Scale(0.0, 1.0)
    assert standardisation(reward(reward_mean=2.0, reward_std=4.0), 0.1) == Scale(2.0, 4.0)


def test_scores_are_centred_scaled_and_pay_for_a_missing_end():
    found = Scale(2.0, 4.0).standardised([2.0, 10.0], [True, False], missing_eos_penalty=0.5)
    assert found.tolist() == [0.0, 1.5]


def test_a_reward_model_without_a_record_is_not_scaled():
    with pytest.raises(ArtifactError, match=r"^method\.reward_std=1\.0 needs .*set method\.reward_std=null"):
        standardisation(reward(), 1.0)


@pytest.mark.parametrize("deviation", [0.0, None])  # null is how a NaN is written
def test_scores_without_deviation_are_not_scaled(deviation):
    with pytest.raises(ArtifactError, match=r"^method\.reward_std=1\.0: .* same score .*set it to null"):
        standardisation(reward(reward_mean=0.5, reward_std=deviation), 1.0)


def test_the_mask_has_each_row_as_long_as_it_is():
    rows = [Tokens((1,), (2,)), Tokens((1,), (2, 3))]
    ctx = type("OneRank", (), {"dist": RankOf(0, 1), "micro_batch": 1})()
    mask = response_mask(minibatches(rows, batch_size=2, pad_id=0, ctx=ctx))
    assert mask.tolist() == [[True, False], [True, True]]
