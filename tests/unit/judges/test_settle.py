"""What a judge behind an API is in a stage's key and in the bill of a plan."""

from pathlib import Path

import pytest

from alpacafarm.errors import PlanError
from alpacafarm.judges.knows import bill, check_judge
from alpacafarm.judges.settle import settled
from alpacafarm.request import Price
from alpacafarm.spec.base import Strict
from alpacafarm.spec.judge import AlpacaEvalJudge, ApiJudge, AskedJudge, JudgeSpec
from alpacafarm.stage import content_key

TEXT = "Instruction: {instruction}\nFirst: {output_1}\nSecond: {output_2}\n{answer}"


class Stage(Strict):
    """A stage's spec that has a judge and something that has one."""

    judge: JudgeSpec
    inner: JudgeSpec | None


class Up:
    """A plan's upstream where everything costs 2 USD for a million tokens read and 10 for one said."""

    has_gold = False
    pair_tokens = 1000

    def price(self, model: str) -> Price:
        return Price(2.0, 10.0)


def api_judge(**changes) -> ApiJudge:
    told = {"model": "m", "prompt": "pairwise", "answer": "label", "temperature": 0.0, "max_tokens": 10}
    return ApiJudge(kind="api", **{**told, "seed": None, "both_orders": False, "extra": None, **changes})


def test_the_text_of_a_prompt_is_in_the_key_and_its_place_is_not(tmp_path: Path):
    def key(folder: str, text: str) -> str:
        path = tmp_path / folder / "mine.txt"
        path.parent.mkdir()
        path.write_text(text)
        spec = Stage(judge=api_judge(prompt=str(path)), inner=None)
        assert str(tmp_path) not in settled(spec).model_dump_json()
        return content_key(settled(spec).canonical())

    assert key("a", TEXT) == key("b", TEXT)
    assert key("c", TEXT) != key("d", TEXT + " Be strict.")


def test_a_settled_spec_is_read_back_as_it_was():
    alpaca_eval = AlpacaEvalJudge(
        kind="alpaca_eval", name="chatgpt", model=None, seed=0, both_orders=True, one_per_prompt=False
    )
    spec = settled(Stage(judge=api_judge(), inner=alpaca_eval))
    assert isinstance(spec.judge, AskedJudge)
    assert isinstance(spec.inner, AskedJudge)
    assert Stage.model_validate(spec.canonical()) == spec
    assert settled(spec) is spec


def test_the_bill_of_a_judge_behind_an_api():
    """1 USD for 500,000 tokens read, or for 100,000 said."""
    told = bill(api_judge(), Up(), rows=100, share=0.5, split="eval")
    template_tokens = told.tokens_in // 50 - 1000
    assert 150 < template_tokens < 400  # half a page
    assert (told.judge_calls, told.tokens_out, told.models) == (50, 500, ("m",))
    assert told.price_usd == pytest.approx((told.tokens_in * 2 + 500 * 10) / 1e6)
    assert told.text == f"about 50 judge calls of m, at most about {told.price_usd:.2f} USD"
    twice = bill(api_judge(both_orders=True), Up(), rows=100, share=0.5, split="eval")
    assert (twice.judge_calls, twice.price_usd) == (100, pytest.approx(2 * told.price_usd))


class Free(Up):
    def price(self, model):
        return Price(0.0, 0.0)


def test_the_bill_of_a_judge_that_is_free_is_plain():
    told = bill(api_judge(), Free(), rows=100, share=0.5, split="eval")
    assert told.text == "about 50 judge calls of m, 0 USD"


def test_the_bill_where_the_rows_are_not_known():
    told = bill(api_judge(both_orders=True), Up(), rows=None, share=0.5, split="eval")
    assert told.judge_calls is None
    assert told.text.startswith("100% of the rows judge calls of m, at most about ")
    assert told.text.endswith(" USD for 1,000 rows")


def test_pairs_that_share_a_prompt_share_a_call():
    judge = AlpacaEvalJudge(
        kind="alpaca_eval",
        name="alpaca_farm_greedy_gpt4",
        model="m",
        seed=0,
        both_orders=False,
        one_per_prompt=False,
    )
    assert bill(judge, Up(), rows=100, share=1, split="eval").judge_calls == 20
    alone = judge.model_copy(update={"one_per_prompt": True})
    assert bill(alone, Up(), rows=100, share=1, split="eval").judge_calls == 100


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (TEXT + TEXT, r"it asks about 2 pairs at once, and must about 1; set another prompt"),
        (
            "{instruction} {output_1}",
            r"{output_2} 0 times; it needs {instruction}, {output_1} and {output_2}",
        ),
        ("<|im_start|>user\n" + TEXT, r"there is text outside of <\|im_start\|>role"),
        (f"Hello.\n<|im_start|>user\n{TEXT}<|im_end|>", r"there is text outside of"),
        (f"<|im_start|>\n{TEXT}<|im_end|>", r"<\|im_start\|> is no role; write <\|im_start\|>user"),
        (f"<|im_start|>user me\n{TEXT}<|im_end|>", r"<\|im_start\|>user me is no role; write"),
        (
            "<|im_start|>user a={instruction}\n{output_1} {output_2}<|im_end|>",
            r"<\|im_start\|>user a={instruction} is no role; write",
        ),
    ],
)
def test_a_prompt_that_cannot_ask_about_a_pair_is_refused(tmp_path: Path, text: str, said: str):
    path = tmp_path / "mine.txt"
    path.write_text(text)
    with pytest.raises(PlanError, match=rf"^feedback\.judge\.prompt=.*mine\.txt: .*{said}"):
        check_judge(api_judge(prompt=str(path)), "feedback", Up())
