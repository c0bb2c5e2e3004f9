"""AlpacaEval 2's raw annotations, verdict by verdict, from the log-probabilities that its judge gave."""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from alpacafarm.judges import alpaca_eval
from alpacafarm.judges.answers import weighted
from alpacafarm.judges.template import Template
from alpacafarm.request import Answer
from alpacafarm.spec.judge import AlpacaEvalJudge

DATA = Path(__file__).parents[4] / "shared" / "data" / "alpaca_eval"
JUDGE = "weighted_alpaca_eval_gpt4_turbo"
MODELS = ("alpaca-7b", "claude", "falcon-40b-instruct", "gpt-3.5-turbo-1106", "phi-2-sft", "wizardlm-13b")
SPEC = AlpacaEvalJudge(
    kind="alpaca_eval", name=JUDGE, model=None, seed=0, both_orders=False, one_per_prompt=False
)
ROUNDED = 1e-9  # they are stored with ten decimals
needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="AlpacaEval's outputs and annotations are not beside the checkout"
)


def table(name: str) -> list[dict[str, Any]]:
    with gzip.open(DATA / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        return list(json.load(file))


def is_switched(instruction: str) -> bool:
    """Whether AlpacaEval showed the model's output first (RandomSwitchTwoColumnsProcessor, seed 0)."""
    return random.Random(f"is_switched_outputs{instruction}0").choices([False, True], k=1)[0]


@needs_data
@pytest.mark.parametrize("model", MODELS)
def test_every_weighted_preference_is_reproduced(model):
    instructions = {row["index"]: row["instruction"] for row in table("eval_instructions_text_davinci_003")}
    rows = [row for row in table(f"ann_{JUDGE}_{model}") if row["lp"]]
    assert len(rows) > 800
    read = alpaca_eval.parsed(alpaca_eval.asked(SPEC, "judge").reading)
    for row in rows:
        (theirs,) = read(Answer(next(iter(row["lp"])), [row["lp"]]), 1)
        for told in (weighted(row["lp"]), theirs):
            preference = 3 - told if is_switched(instructions[row["index"]]) else told
            assert preference == pytest.approx(row["preference"], abs=ROUNDED), row["index"]


@needs_data
def test_real_answers_come_through_as_they_are():
    """But for line ends, the space between a last quote and the closing ones, and what looks like a mark."""
    import pandas as pd
    from alpaca_eval import utils

    text = alpaca_eval.asked(SPEC, "judge").template
    outputs = [table(f"outputs_{model}") for model in ("gpt4_1106_preview", "claude")]
    rows = [
        {
            "instruction": row["instruction"],
            "input": "",
            **{f"output_{i}": o["output"].replace("\r\n", "\n") for i, o in enumerate(two, 1)},
        }
        for row, *two in zip(table("eval_instructions_text_davinci_003"), *outputs, strict=True)
    ]
    theirs, _ = utils.make_prompts(pd.DataFrame(rows), text, 1)
    template = Template(text)
    ours = [template.messages([row])[-1]["content"].replace('" """', '""""') for row in rows]
    same = [
        one == utils.prompt_to_chatml(other)[-1]["content"] for one, other in zip(ours, theirs, strict=True)
    ]
    assert len(same) == 805
    assert sum(same) > 0.99 * 805
