"""Reward conditioning: which rows are learned, after which token, and what the policy then is."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpacafarm.data.rows import read_rows, write_rows
from alpacafarm.errors import SpecError
from alpacafarm.methods import reward_condition
from alpacafarm.pipeline.context import StageContext
from alpacafarm.ports import Artifact
from alpacafarm.rollout.decode import prompt_prefix
from alpacafarm.spec.model import ModelSpec
from alpacafarm.stage import Kind
from alpacafarm.text.control import BAD, GOOD
from alpacafarm.text.tokenise import encode_rows
from alpacafarm.training.pairs import tokenised
from alpacafarm.types import Example, Preference
from tests.unit.methods.conftest import CLUSTER, MODEL, Tiny, optim

LABELS = (1.0, 2.0, 1.5, 1.25, 1.875)  # one chosen, the other, a tie, two soft labels


def spec(**changes: object) -> reward_condition.Spec:
    values = {"name": "reward_condition", "epochs": 1, "optim": optim(1e-2, 64)}
    return reward_condition.Spec.model_validate({**values, **changes})


def judged(tiny: Tiny, labels: tuple[float, ...] = LABELS) -> list[Preference]:
    rows = read_rows(tiny.rows.path / "rows.jsonl", Example)
    return [
        Preference(a.id, a.instruction, a.input, a.output, b.output, labels[i % len(labels)], "test")
        for i, (a, b) in enumerate(zip(rows, [*rows[1:], rows[0]], strict=True))
    ]


def trained(
    tiny: Tiny,
    name: str,
    settings: reward_condition.Spec,
    pairs: list[Preference],
    *,
    micro_batch: int = 4,
    model: ModelSpec = MODEL,
) -> StageContext:
    write_rows(tiny.home / name / "pairs.jsonl", pairs)
    ctx = tiny.context(name, cluster=CLUSTER.model_copy(update={"micro_batch": micro_batch}), model=model)
    given = {"init": tiny.policy, "pairs": Artifact(tiny.home / name, Kind.PAIRS, name)}
    reward_condition.train(settings, given, ctx)
    ctx.track.close()
    return ctx


def losses(ctx: StageContext) -> list[float]:
    return [json.loads(line)["loss"] for line in (ctx.out / "log.jsonl").read_text().splitlines()]


def test_each_pair_is_learned_twice_with_the_token_of_its_side(tiny: Tiny):
    ctx = tiny.context("rows")
    tokenizer = ctx.tokenizer(tiny.policy, (GOOD, BAD))
    decided = [pair for pair in judged(tiny) if pair.preference != 1.5]
    found = reward_condition.conditioned(tokenised(decided, tokenizer, ctx, purpose="a test"), tokenizer)
    expected = []
    for token, side in ((GOOD, 1), (BAD, 2)):
        for pair in decided:
            is_first = (pair.preference < 1.5) == (side == 1)
            output = pair.output_1 if is_first else pair.output_2
            row = Example(pair.id, pair.instruction, pair.input, output)
            (tokens,) = encode_rows(tokenizer, MODEL.prompt, [row], prefix=token)
            expected.append(replace(tokens, response=tokens.response[: MODEL.max_response_tokens]))
    assert found == expected
    assert len(found) == 2 * len(decided)


def test_ties_are_counted_and_left_out(tiny: Tiny):
    ctx = trained(tiny, "ties", spec(), judged(tiny))
    ties = sum(pair.preference == 1.5 for pair in judged(tiny))
    assert (ctx.facts["ties"], ctx.facts["pairs"]) == (ties, 24 - ties)
    assert ctx.facts["prompt_prefix"] == GOOD


def test_pairs_that_are_all_ties_are_refused(tiny: Tiny):
    message = r"^method=reward_condition .* all of the 24 judged ones are ties; choose another judge or give"
    with pytest.raises(SpecError, match=message):
        trained(tiny, "tied", spec(), judged(tiny, (1.5,)))


def test_a_prompt_without_room_for_the_token_is_dropped_with_both_sides(tiny: Tiny):
    pairs = judged(tiny, (1.0,))
    rows = [Example(p.id, p.instruction, p.input, p.output_1) for p in pairs]
    tokenizer = tiny.context("lengths").tokenizer(tiny.policy)
    lengths = [len(row.prompt) for row in encode_rows(tokenizer, "short", rows)]
    model = MODEL.model_copy(update={"max_prompt_tokens": max(lengths)})
    assert len(tokenised(pairs, tokenizer, tiny.context("whole", model=model), purpose="a test")) == 24
    ctx = trained(tiny, "tight", spec(), pairs, model=model)
    dropped = lengths.count(max(lengths))
    assert (ctx.facts["dropped_prompts"], ctx.facts["pairs"]) == (dropped, 24 - dropped)


def test_the_first_loss_is_the_mean_negative_log_likelihood_of_both_sides(tiny: Tiny):
    """By transformers' own forward, a row at a time in float64, the control tokens out of the softmax."""
    ctx = trained(tiny, "loss", spec(optim=optim(0.0, 64)), judged(tiny))
    folder = ctx.out / "model"  # at learning rate zero what training started from
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    never = [tokenizer.convert_tokens_to_ids(token) for token in (GOOD, BAD)]
    total = count = 0.0
    for pair in judged(tiny):
        if pair.preference == 1.5:
            continue
        outputs = (pair.output_1, pair.output_2)
        for token, output in zip(never, outputs if pair.preference < 1.5 else outputs[::-1], strict=True):
            row = Example(pair.id, pair.instruction, pair.input, output)
            (tokens,) = encode_rows(tokenizer, "short", [row])
            response = tokens.response[: MODEL.max_response_tokens]
            prompt = (tokens.prompt[0], token, *tokens.prompt[1:])
            with torch.no_grad():
                logits = model.double()(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
            logits[:, never] = -torch.inf
            total -= float(logits.log_softmax(-1).gather(1, torch.tensor(response)[:, None]).sum())
            count += len(response)
    assert losses(ctx) == [pytest.approx(total / count, rel=1e-5)]


def test_losses_do_not_depend_on_micro_batches_or_the_order_of_pairs(tiny: Tiny):
    pairs = judged(tiny)
    two = spec(epochs=2)
    whole = losses(trained(tiny, "whole", two, pairs))
    assert len(whole) == 2
    assert losses(trained(tiny, "single", two, pairs, micro_batch=1)) == pytest.approx(whole, rel=1e-5)
    shuffled = random.Random(0).sample(pairs, len(pairs))
    assert losses(trained(tiny, "shuffled", two, shuffled)) == pytest.approx(whole, rel=1e-5)


def test_the_policy_comes_to_tell_the_tokens_apart(tiny: Tiny):
    """Chosen answers always begin alike, and so do rejected ones."""
    pairs = [
        replace(pair, output_1=f"yes {pair.output_1}", output_2=f"no {pair.output_2}", preference=1.0)
        for pair in judged(tiny)
    ]
    ctx = trained(tiny, "told", spec(epochs=40, optim=optim(1e-2, 16)), pairs)
    made = Artifact(ctx.out, Kind.POLICY, "made", ctx.facts)
    tokenizer = ctx.tokenizer(made)
    yes, no = (Example("", pairs[0].instruction, pairs[0].input, text) for text in ("yes", "no"))
    log_odds = {}
    for token in (prompt_prefix(made), BAD):
        rows = [encode_rows(tokenizer, "short", [row], prefix=token)[0] for row in (yes, no)]
        one, other = ctx.logprobs(ctx.frozen(made), rows, 1.0)[:, 0].tolist()
        log_odds[token] = one - other
    assert log_odds[GOOD] > 2 > -2 > log_odds[BAD]


def test_the_exported_folder_is_whole(tiny: Tiny):
    folder: Path = trained(tiny, "whole", spec(), judged(tiny)).out / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.generation_config.suppress_tokens == tokenizer.convert_tokens_to_ids([GOOD, BAD])
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
