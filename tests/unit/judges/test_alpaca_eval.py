"""alpaca-eval's annotators as judges, against alpaca-eval itself."""

import logging
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import yaml

from alpacafarm.errors import PlanError
from alpacafarm.judges import alpaca_eval
from alpacafarm.judges.template import Template
from alpacafarm.spec.judge import AlpacaEvalJudge

CONFIGS = sorted(path.parent.name for path in alpaca_eval.configs().glob("*/configs.yaml"))
TEXTS = {
    "instruction": "Name three primes.\n\nThey shall be odd.",
    "output_1": '3, 5 and 7 — "odd" ones.\n\n# Proof\n1. `7 % 2 == 1`\n\t{"a": [1]}',
    "output_2": "Gerne! Ünïcode 👩‍👩‍👧 هذا\n* 2\n* 3",
}


def spec(name: str, model: str | None = None, **changes):
    judge = AlpacaEvalJudge(
        kind="alpaca_eval", name=name, model=model, seed=0, both_orders=False, one_per_prompt=False, **changes
    )
    return alpaca_eval.asked(judge, "eval.judge")


def annotators() -> list[str]:
    names = []
    for folder in CONFIGS:
        told = yaml.safe_load((alpaca_eval.configs() / folder / "configs.yaml").read_text())
        names += [folder] if len(told) == 1 else [f"{folder}/{name}" for name in told]
    return names


def test_there_are_annotators():
    assert len(annotators()) >= 50


@pytest.mark.parametrize("name", annotators())
def test_every_annotator_asks_what_alpaca_eval_asks(name):
    """Texts without anything that looks like a part of the prompt come through as they are."""
    import pandas as pd
    from alpaca_eval import utils

    judge = spec(name, "some-model")
    template = Template(judge.template)
    frame = pd.DataFrame([TEXTS] * template.pairs)
    (theirs,), _ = utils.make_prompts(frame, judge.template, template.pairs)
    shown = [{**TEXTS, "input": ""}] * template.pairs
    if template.is_chat:
        assert template.messages(shown) == utils.prompt_to_chatml(theirs.strip())
    else:
        assert template.prompt(shown) == theirs.strip()


def test_parameters_are_the_configs_without_what_is_no_part_of_the_answer():
    assert spec("weighted_alpaca_eval_gpt4_turbo").parameters == {
        "temperature": 1,
        "top_p": 1.0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 5,
    }
    assert set(spec("alpaca_farm/gpt4_4").parameters) == {"temperature", "top_p", "max_tokens"}
    assert spec("claude", "some-model").parameters["max_tokens"] == 50


def test_a_model_without_chat_is_asked_for_a_completion():
    assert not spec("text_davinci_003").chat
    assert spec("text_davinci_003", "qwen2.5-7b-instruct").chat
    assert spec("alpaca_eval_gpt4").chat


def test_the_name_says_which_model_was_asked():
    assert spec("alpaca_eval_gpt4").name == "alpaca_eval_gpt4"
    assert spec("alpaca_eval_gpt4", "some-model").name == "alpaca_eval_gpt4@some-model"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("claude", r"eval\.judge\.name=claude: .*anthropic_completions, .*; set eval\.judge\.model to"),
        ("guanaco_33b", r"huggingface_api_completions, .*; set eval\.judge\.model"),
        ("alpaca_eval_vllm_llama3_70b_fn", r"set eval\.judge\.model"),
        ("weighted_alpaca_eval_vllm_llama3_70b", r"set eval\.judge\.model"),
        ("alpaca_eval_gpt5", r"no such annotator; did you mean alpaca_eval_gpt4.*known: .*chatgpt"),
        ("alpaca_farm", r"several annotators; name one of them: alpaca_farm/gpt4_1, "),
        ("alpaca_farm/gpt5", r"name one of them: alpaca_farm/gpt4_1"),
        ("../alpaca_farm", r"no such annotator"),
    ],
)
def test_what_cannot_be_asked_is_refused_with_a_way_out(name, said):
    with pytest.raises(PlanError, match=said):
        spec(name)


def test_its_parsers_leave_the_process_as_it_was(tmp_path: Path):
    """It sets the root logger's level and reads a .env file, which must not reach our own settings."""
    code = (
        "import logging, os\n"
        "from alpacafarm.judges import alpaca_eval\n"
        "from alpacafarm.spec.judge import Reading\n"
        "before = dict(os.environ), logging.getLogger().level\n"
        "alpaca_eval.parsed(Reading(by='alpaca_eval', parser='ranking_parser'))\n"
        "assert (dict(os.environ), logging.getLogger().level) == before\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_contained_undoes_what_it_is_for():
    before = dict(os.environ), logging.getLogger().level
    with warnings.catch_warnings(record=True) as heard, alpaca_eval.contained():
        warnings.warn("pkg_resources is deprecated as an API.", stacklevel=1)
        os.environ["ALPACAFARM_NO_SUCH"] = "1"
        logging.getLogger().setLevel(3)
    assert (dict(os.environ), logging.getLogger().level) == before
    assert heard == []
