"""A model behind an API as judge, with a prompt of ours or of the user's: what its spec comes to."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alpacafarm.errors import PlanError
from alpacafarm.judges.answers import CHOICE, FIRST, SECOND
from alpacafarm.judges.template import Template
from alpacafarm.spec.judge import ApiJudge, AskedJudge, Reading

PROMPTS = Path(__file__).with_name("prompts")
TOP_LOGPROBS = 5  # as alpaca-eval's weighted annotators; the labels are among them or the answer is none
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {CHOICE: {"type": "string", "enum": [FIRST, SECOND]}},
    "required": [CHOICE],
    "additionalProperties": False,
}
TOOL = "choose_the_better_answer"
HOW_TO_ANSWER = {  # stands in a prompt's {answer}
    "label": f"Answer with its identifier and nothing else: {FIRST} or {SECOND}.",
    "logprobs": f"Answer with its identifier and nothing else: {FIRST} or {SECOND}.",
    "json": f'Answer with its identifier, {{"{CHOICE}": "{FIRST}"}} or {{"{CHOICE}": "{SECOND}"}}, in JSON.',
    "tool": f"Call {TOOL} with its identifier, {FIRST} or {SECOND}.",
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "label": {},
    "logprobs": {"logprobs": True, "top_logprobs": TOP_LOGPROBS},
    "json": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "strict": True, "schema": SCHEMA},
        }
    },
    "tool": {
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": TOOL,
                    "description": "Says which of two answers is better.",
                    "strict": True,
                    "parameters": SCHEMA,
                },
            }
        ],
        "tool_choice": {"type": "function", "function": {"name": TOOL}},
    },
}
READINGS = {
    "label": Reading(by="label"),
    "logprobs": Reading(by="logprobs"),
    "json": Reading(by="choice"),
    "tool": Reading(by="choice"),
}


def asked(judge: ApiJudge, key: str) -> AskedJudge:
    """The judge with its prompt's text and all parameters. PlanError names keys below `key`."""
    text = prompt_text(judge.prompt, f"{key}.prompt").replace("{answer}", HOW_TO_ANSWER[judge.answer])
    orders = "+both_orders" if judge.both_orders else ""
    return AskedJudge(
        kind="asked",
        name=f"{judge.model}+{Path(judge.prompt).stem}+{judge.answer}{orders}",
        model=judge.model,
        template=checked(text, f"{key}.prompt={judge.prompt}"),
        chat=True,
        parameters={**_body(judge), **PARAMETERS[judge.answer], **(judge.extra or {})},
        reading=READINGS[judge.answer],
        seed=judge.seed,
        both_orders=judge.both_orders,
        pairs_per_prompt=1,
    )


def _body(judge: ApiJudge) -> Mapping[str, Any]:
    told = {"temperature": judge.temperature, "max_tokens": judge.max_tokens, "seed": judge.seed}
    return {name: value for name, value in told.items() if value is not None}


def packaged() -> dict[str, Path]:
    """Our own prompts, by name."""
    return {path.stem: path for path in PROMPTS.glob("*.txt")}


def prompt_text(prompt: str, key: str) -> str:
    """The text of a named prompt or of a file."""
    path = packaged().get(prompt, Path(prompt).expanduser())
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{key}={prompt}: there is no such prompt and no file that can be read "
            f"({type(error).__name__}); known: {', '.join(sorted(packaged()))}; or name a file of yours"
        ) from None


def checked(text: str, where: str, *, pairs: int | None = 1) -> str:
    """The template, PlanError where it cannot ask about so many pairs; None: about any number."""
    try:
        found = Template(text).pairs
    except ValueError as error:
        raise PlanError(f"{where}: {error}; set another prompt") from None
    if pairs not in (None, found):
        raise PlanError(
            f"{where}: it asks about {found} pairs at once, and must about {pairs}; set another prompt"
        )
    return text
