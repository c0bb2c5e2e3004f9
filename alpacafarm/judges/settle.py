"""From what a user writes of a judge to what decides its verdicts, before a stage's key is made of it."""

from collections.abc import Mapping
from typing import Any, TypeVar

from alpacafarm.judges import alpaca_eval, api
from alpacafarm.spec.base import Strict
from alpacafarm.spec.judge import AlpacaEvalJudge, ApiJudge, AskedJudge, LocalJudge, RecordedJudge

AMONG_THE_INPUTS = "among the inputs"  # by content: where a file or model lies changes nothing
S = TypeVar("S", bound=Strict)


def asked(judge: ApiJudge | AlpacaEvalJudge, key: str = "judge") -> AskedJudge:
    """The judge with the text of its prompt and all that is sent along. PlanError names keys below `key`."""
    return api.asked(judge, key) if isinstance(judge, ApiJudge) else alpaca_eval.asked(judge, key)


def with_text(judge: LocalJudge, key: str = "judge") -> LocalJudge:
    """The judge with the text of its prompt in the place of its name. PlanError names keys below `key`."""
    if "{output_1}" in judge.prompt:
        return judge
    text = api.prompt_text(judge.prompt, f"{key}.prompt").replace("{answer}", api.HOW_TO_ANSWER["label"])
    return judge.model_copy(update={"prompt": api.checked(text, f"{key}.prompt={judge.prompt}")})


def settled(spec: S) -> S:
    """The spec with every judge in it as it will be asked: another prompt of one name is another stage, and
    a file or model is the same wherever it lies."""
    told = {name: getattr(spec, name) for name in type(spec).model_fields}
    made = {name: _settled(value) for name, value in told.items()}
    changed = {name: value for name, value in made.items() if value is not told[name]}
    return spec.model_copy(update=changed) if changed else spec


def _settled(value: Any) -> Any:
    if isinstance(value, ApiJudge | AlpacaEvalJudge):
        return asked(value)
    if isinstance(value, LocalJudge):
        return with_text(value).model_copy(update={"path": AMONG_THE_INPUTS, "revision": None})
    if isinstance(value, RecordedJudge):
        return value.model_copy(update={"path": AMONG_THE_INPUTS})
    if isinstance(value, Strict):
        return settled(value)
    if isinstance(value, Mapping):
        made = {key: _settled(one) for key, one in value.items()}
        return made if any(made[key] is not value[key] for key in made) else value
    return value
