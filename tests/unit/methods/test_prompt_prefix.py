"""A policy that is asked with a control token: sampled with it, and read by all others without."""

import json

import pytest
import torch

from alpacafarm.data.rows import read_outputs, read_rows
from alpacafarm.evals.winrate import _log_ratios
from alpacafarm.methods import sft
from alpacafarm.models.load import load_policy
from alpacafarm.pipeline.scorer import RewardScorer
from alpacafarm.ports import Artifact
from alpacafarm.rollout.decode import DecodeSpec, decode, read_tokens
from alpacafarm.spec.model import Sampling
from alpacafarm.stage import Kind
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.text.control import BAD, GOOD, control_ids
from alpacafarm.text.tokenise import with_prefix
from alpacafarm.types import Example
from tests.unit.methods.conftest import Tiny, optim

WHOLE = Sampling(temperature=1.0, top_p=1.0, top_k=0, max_new_tokens=12)


@pytest.fixture
def tiny(tiny: Tiny) -> Tiny:
    """With larger weights: fresh ones give a uniform distribution, whatever the prompt says."""
    policy = load_policy(tiny.policy.path)
    for parameter in policy.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(12)
    policy.save_pretrained(str(tiny.policy.path))
    return tiny


@pytest.fixture
def conditioned(tiny: Tiny) -> Artifact:
    """The tiny policy with two control tokens, not trained."""
    ctx = tiny.context("conditioned")
    engine = ctx.trainable(tiny.policy, optim(1e-2, 8), control_tokens=(GOOD, BAD))
    engine.export(ctx.out / "model")
    return Artifact(ctx.out, Kind.POLICY, "c", {"prompt_prefix": GOOD})


def decoded(tiny: Tiny, policy: Artifact, name: str, n: int = 2) -> Artifact:
    ctx = tiny.context(name)
    decode(
        DecodeSpec(n=n, sampling=WHOLE, stream="s", prompts=None), {"policy": policy, "rows": tiny.rows}, ctx
    )
    return Artifact(ctx.out, Kind.OUTPUTS, name, ctx.facts)


def test_the_tokens_kept_are_those_of_the_plain_prompt(tiny: Tiny, conditioned: Artifact):
    plain, given = decoded(tiny, tiny.policy, "plain"), decoded(tiny, conditioned, "given")
    before, after = read_tokens(plain.path), read_tokens(given.path)
    assert [row.prompt for row in after] == [row.prompt for row in before]
    assert [row.response for row in after] != [row.response for row in before]
    assert (plain.facts["prompt_prefix"], given.facts["prompt_prefix"]) == ("", GOOD)


def test_responses_are_those_to_the_prefixed_prompt(tiny: Tiny, conditioned: Artifact):
    ctx = tiny.context("again")
    tokens = read_tokens(decoded(tiny, conditioned, "with", n=1).path)
    tokenizer = ctx.tokenizer(conditioned)
    asked = with_prefix(tokenizer, [row.prompt for row in tokens], GOOD)
    assert all(prompt[1] == control_ids(tokenizer)[0] for prompt in asked)
    rows = read_rows(tiny.rows.path / "rows.jsonl", Example)
    seeds = [stable_seed(ctx.seed, "s", row.id, 0) for row in rows]
    with ctx.frozen(conditioned).gathered() as model:
        expected = ctx.sample(model, asked, WHOLE, seeds=seeds)
    assert [row.response for row in tokens] == expected.responses


def test_without_the_fact_the_same_weights_answer_as_before(tiny: Tiny, conditioned: Artifact):
    silent = Artifact(conditioned.path, Kind.POLICY, "n")
    without = read_tokens(decoded(tiny, silent, "without").path)
    assert without == read_tokens(decoded(tiny, tiny.policy, "plain").path)


def test_a_response_never_holds_a_control_token(tiny: Tiny, conditioned: Artifact):
    ids = set(control_ids(tiny.context("ids").tokenizer(conditioned)))
    given = decoded(tiny, conditioned, "given")
    assert all(ids.isdisjoint(row.response) for row in read_tokens(given.path))
    assert not any("<good>" in output.output for output in read_outputs(given.path / "outputs.json"))


def test_a_policy_with_control_tokens_shares_the_vocabulary_of_its_family(tiny: Tiny, conditioned: Artifact):
    ctx = tiny.context("vocabulary")
    assert ctx.vocabulary(conditioned) == ctx.vocabulary(tiny.policy) == ctx.vocabulary(tiny.reward)
    given = decoded(tiny, conditioned, "given")
    scores = ctx.scorer(tiny.reward, vocabulary=given.facts["vocabulary"]).score(read_tokens(given.path))
    plain = RewardScorer(ctx, tiny.reward).score(read_tokens(given.path))
    assert scores == plain


def test_the_kl_asks_each_policy_in_its_own_way(tiny: Tiny, conditioned: Artifact):
    ctx = tiny.context("kl")
    tokens = read_tokens(decoded(tiny, conditioned, "given").path)
    ratios = _log_ratios(conditioned, tiny.policy, tokens, 1.0, ctx)

    def log_p(weights: Artifact, prompt: tuple[int, ...], response: tuple[int, ...], spoken: int) -> float:
        with ctx.frozen(weights).gathered() as model, torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1, :spoken]
        picked = logits.double().log_softmax(-1).gather(1, torch.tensor(response)[:, None])
        return float(picked.sum())

    spoken = len(ctx.tokenizer(tiny.policy))
    asked = with_prefix(ctx.tokenizer(conditioned), [row.prompt for row in tokens], GOOD)
    for ratio, prompt, row in list(zip(ratios, asked, tokens, strict=True))[:10]:
        ours = log_p(conditioned, prompt, row.response, spoken)
        theirs = log_p(tiny.policy, row.prompt, row.response, spoken)
        assert ratio == pytest.approx(ours - theirs, abs=1e-4)
    assert sum(ratios) / len(ratios) > 0.1  # so the prefix matters
    assert _log_ratios(conditioned, conditioned, tokens, 1.0, ctx) == [0.0] * len(tokens)


def test_outputs_are_learned_on_the_plain_prompt(tiny: Tiny, conditioned: Artifact):
    ctx = tiny.context("imitation")
    given = decoded(tiny, conditioned, "given")
    rows = sft.demonstrations(given, ctx.tokenizer(tiny.policy), ctx)
    size = len(ctx.tokenizer(tiny.policy))
    assert all(id < size for row in rows for id in row.prompt + row.response)
    assert [row.prompt for row in rows[::2]] == [
        row.prompt for row in sft.demonstrations(tiny.rows, ctx.tokenizer(tiny.policy), ctx)
    ]


def test_prefix_and_response_fit_the_models_positions(tiny: Tiny, conditioned: Artifact):
    """The prompt is shortened by one token more, so that the control token finds room."""
    rows = [json.loads(line) for line in (tiny.rows.path / "rows.jsonl").read_text().splitlines()]
    long = [{**row, "instruction": row["instruction"] * 9} for row in rows[:3]]
    (tiny.home / "long").mkdir()
    (tiny.home / "long" / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in long))
    longer = Tiny(tiny.home, tiny.policy, tiny.reward, Artifact(tiny.home / "long", Kind.ROWS, "l"))
    given = decoded(longer, conditioned, "cut", n=1)
    assert given.facts["shortened_prompts"] == 3
    assert {len(row.prompt) for row in read_tokens(given.path)} == {128 - 12 - 1}


def test_training_goes_on_from_a_policy_that_has_the_tokens(tiny: Tiny, conditioned: Artifact):
    ctx = tiny.context("again")
    before = ctx.frozen(conditioned).module.policy.get_input_embeddings().weight  # type: ignore[attr-defined]
    engine = ctx.trainable(conditioned, optim(1e-2, 8), control_tokens=(GOOD, BAD))
    assert torch.equal(engine.module.policy.get_input_embeddings().weight, before)  # type: ignore[attr-defined]
