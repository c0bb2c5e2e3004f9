import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alpacafarm import PairwiseAutoAnnotator
from alpacafarm.annotator.alone import context, inputs_of
from alpacafarm.errors import JudgeError, PlanError
from alpacafarm.judges.answers import FIRST, SECOND
from alpacafarm.judges.knows import judge_inputs
from alpacafarm.judges.local import LocalModelJudge
from alpacafarm.judges.settle import settled, with_text
from alpacafarm.judges.template import Template
from alpacafarm.spec.judge import LocalJudge, MemberSpec, runs_a_model
from alpacafarm.text.train_tokenizer import train_tokenizer
from alpacafarm.types import Pair
from tests.unit.models import tiny

TEMPLATE = "Task: {instruction}\nm: {output_1}\nM: {output_2}\nBetter:"
PAIRS = [
    Pair("a", "add one and two", "", "three", "four, or so"),
    Pair("b", "say hello", "to Ann", "hello Ann", "no"),
    Pair("c", "say hello", "", "bye", "hello"),
]
SWAPPED = [Pair(p.id, p.instruction, p.input, p.output_2, p.output_1) for p in PAIRS]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A random GPT-2 with a tokenizer of bytes."""
    return saved(tmp_path_factory.mktemp("judge"), tiny_model())


def tiny_model():
    return tiny.policy("gpt2", vocab_size=320, n_positions=96, n_ctx=96)


def saved(path, model, size=320):
    model.save_pretrained(path)
    train_tokenizer(["say hello to Ann"] * 9, size).save_pretrained(path)
    return path


def spec(path, *, both_orders=False, prompt=TEMPLATE):
    return LocalJudge(kind="local", path=str(path), revision=None, prompt=prompt, both_orders=both_orders)


def judge(judge_spec, seed=0):
    return context(seed).judge(judge_spec, inputs_of(judge_spec))


def probability(folder, pair, first, second):
    """p(M) of the two labels as the next token, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    instruction = "\n\n".join(filter(None, (pair.instruction, pair.input)))
    text = f"Task: {instruction}\nm: {first}\nM: {second}\nBetter:\n\n"
    with torch.no_grad():
        logits = model(tokenizer(text, return_tensors="pt").input_ids).logits[0, -1]
    labels = tokenizer.convert_tokens_to_ids([FIRST, SECOND])
    return float(torch.softmax(logits[labels], 0)[1])


def test_a_verdict_is_the_softmax_over_the_two_labels(folder):
    for pair, verdict in zip(PAIRS, judge(spec(folder)).compare(PAIRS), strict=True):
        as_shown = probability(folder, pair, pair.output_1, pair.output_2)
        swapped = 1 - probability(folder, pair, pair.output_2, pair.output_1)
        told = verdict.preference - 1
        assert told == pytest.approx(as_shown, abs=1e-5) or told == pytest.approx(swapped, abs=1e-5)
        assert abs(told - 0.5) > 0.01  # or the labels are not told apart
        assert (verdict.calls, verdict.price_usd, verdict.failure) == (0, 0, None)


def test_both_orders_are_averaged(folder):
    for pair, verdict in zip(PAIRS, judge(spec(folder, both_orders=True)).compare(PAIRS), strict=True):
        one = probability(folder, pair, pair.output_1, pair.output_2)
        two = 1 - probability(folder, pair, pair.output_2, pair.output_1)
        assert verdict.preference - 1 == pytest.approx((one + two) / 2, abs=1e-5)
        assert verdict.contradicted == (min(one, two) < 0.5 < max(one, two))


@pytest.mark.parametrize("both_orders", [False, True])
def test_swapping_the_outputs_mirrors_the_verdict(folder, both_orders):
    asked = judge(spec(folder, both_orders=both_orders))
    for a, b in zip(asked.compare(PAIRS), asked.compare(SWAPPED), strict=True):
        assert a.preference == pytest.approx(3 - b.preference, abs=1e-6)


def test_the_order_is_a_coin_of_seed_and_pair(folder):
    preferences = {judge(spec(folder), seed).compare(PAIRS[:1])[0].preference for seed in range(12)}
    assert len({round(preference, 4) for preference in preferences}) == 2


def test_a_model_that_always_says_the_first_label_prefers_a_place_and_no_answer(tmp_path):
    """Its last layer norm gives one vector b whatever it reads, which is the embedding of `m`: the logit of
    `m` is |b|^2, that of `M` zero."""
    model = tiny_model()
    tokenizer = AutoTokenizer.from_pretrained(saved(tmp_path, model))
    first, second = tokenizer.convert_tokens_to_ids([FIRST, SECOND])
    with torch.no_grad():
        b = torch.full((16,), 0.5)
        model.transformer.ln_f.weight.zero_()
        model.transformer.ln_f.bias.copy_(b)
        model.transformer.wte.weight[first] = b
        model.transformer.wte.weight[second] = 0
    saved(tmp_path, model)
    p_first = 1 / (1 + math.exp(-4.0))  # |b|^2 = 16 / 4
    told = [verdict.preference - 1 for verdict in judge(spec(tmp_path)).compare(PAIRS)]
    assert all(min(p, 1 - p) == pytest.approx(1 - p_first, abs=1e-5) for p in told)
    for verdict in judge(spec(tmp_path, both_orders=True)).compare(PAIRS):
        assert verdict.preference == pytest.approx(1.5)
        assert verdict.contradicted


def test_a_pair_that_the_model_cannot_read_is_a_failure_and_the_others_are_not(folder):
    long = Pair("d", "add", "", "three " * 40, "four")
    verdicts = judge(spec(folder)).compare([PAIRS[0], long, PAIRS[1]])
    assert [v.failure and v.failure.partition(":")[0] for v in verdicts] == [None, "too long", None]
    assert verdicts[0] == judge(spec(folder)).compare(PAIRS[:1])[0]


@pytest.mark.parametrize("told", [(-math.inf, -math.inf), (math.nan, -1.0)])
def test_a_model_that_says_neither_label_gives_no_verdict(told):
    def logprobs(prompts, _):
        return [told] * len(prompts)

    verdicts = LocalModelJudge(Template(TEMPLATE), logprobs, both_orders=True, seed=0, name="j").compare(
        PAIRS
    )
    assert [v.preference for v in verdicts] == [None] * len(PAIRS)
    assert all(v.failure for v in verdicts)


def test_labels_that_a_tokenizer_does_not_tell_apart_are_refused(folder, tmp_path):
    saved(tmp_path, tiny_model())
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    from tokenizers.normalizers import Lowercase

    tokenizer.backend_tokenizer.normalizer = Lowercase()
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(
        JudgeError, match=r"judge\.path=.*does not tell m from M, .*; set judge\.path to another"
    ):
        judge(spec(tmp_path)).compare(PAIRS)


def test_the_text_of_a_named_prompt_is_part_of_the_stage(folder):
    named = spec(folder, prompt="pairwise")
    member = MemberSpec(weight=1, judge=named, noise=None)
    text = settled(member).judge.prompt
    assert Template(text).pairs == 1
    assert text == with_text(named).prompt != "pairwise"
    assert settled(settled(member)) == settled(member)
    with pytest.raises(
        PlanError, match=r"^judge\.prompt=nothing: there is no such prompt .*known: .*pairwise"
    ):
        with_text(spec(folder, prompt="nothing"))


class Up:
    def model(self, key, location, revision):
        return (key, location, revision)


def test_the_weights_are_an_input_of_the_stage():
    asked = spec("owner/judge")
    assert judge_inputs(asked, "eval", Up()) == {"judge": ("eval.judge.path", "owner/judge", None)}
    assert runs_a_model(asked)


def test_python_code_asks_a_local_model(folder):
    annotator = PairwiseAutoAnnotator(spec(folder, both_orders=True).canonical())
    rows = [{"instruction": p.instruction, "output_1": p.output_1, "output_2": p.output_2} for p in PAIRS]
    assert all(1 < row["preference"] < 2 for row in annotator.annotate_pairs(rows))
