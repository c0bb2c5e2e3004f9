"""alpaca-eval's annotators: its configs, prompts and parsers. Asking, order and noise are ours.

A plan reads the configs as files. alpaca-eval itself is imported where its parsers run: that takes seconds,
loads a .env file into the environment and sets the root logger's level, which is undone here.
"""

import json
import logging
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alpacafarm.errors import PlanError
from alpacafarm.judges.answers import Unparsable, unfenced
from alpacafarm.judges.api import checked
from alpacafarm.judges.template import Template
from alpacafarm.lookup import suggestion
from alpacafarm.request import Answer
from alpacafarm.spec.judge import AlpacaEvalJudge, AskedJudge, Reading

if TYPE_CHECKING:
    from alpacafarm.judges.asked import Read

SENT = ("temperature", "top_p", "max_tokens", "logprobs", "top_logprobs", "tools", "tool_choice", "stop")
# Not sent: how alpaca-eval reaches a model, its prices, and `tokens_to_favor` and `tokens_to_avoid`, for
# which it needs the tokenisers of models that are retired.
LIMITS = ("max_tokens", "max_tokens_to_sample", "max_new_tokens")  # what providers call the first of them
DEFAULTS = {"temperature": 0.7, "top_p": 1.0}  # alpaca_eval.decoders.openai
WITHOUT_CHAT = re.compile(r"text-|davinci|babbage|gpt-3\.5-turbo-instruct")


def asked(judge: AlpacaEvalJudge, key: str) -> AskedJudge:
    """The judge with its prompt's text and all parameters. PlanError names keys below `key`."""
    config = found(judge.name, f"{key}.name")
    told = config.get("completions_kwargs") or {}
    model = judge.model or _model(config, told, judge.name, key)
    text = (configs() / config["prompt_template"]).read_text(encoding="utf-8")
    limit = next((told[name] for name in LIMITS if name in told), None)
    body = {**DEFAULTS, **told, **({} if limit is None else {"max_tokens": limit})}
    places = Template(checked(text, f"{key}.name={judge.name}", pairs=None)).pairs
    return AskedJudge(
        kind="asked",
        name=judge.name
        + (f"@{judge.model}" if judge.model else "")
        + "+both_orders" * judge.both_orders
        + "+one_per_prompt" * (judge.one_per_prompt and places > 1),
        model=model,
        template=text,
        chat="<|im_start|>" in text or not WITHOUT_CHAT.match(model),
        parameters={name: body[name] for name in SENT if name in body},
        reading=_reading(config),
        seed=judge.seed,
        both_orders=judge.both_orders,
        pairs_per_prompt=1 if judge.one_per_prompt else places,
    )


def configs() -> Path:
    """The folder of alpaca-eval's annotators."""
    spec = find_spec("alpaca_eval")
    if spec is None or spec.origin is None:
        raise PlanError("kind=alpaca_eval: alpaca-eval is not installed; pip install 'alpaca-eval>=0.6.6'")
    return Path(spec.origin).parent / "evaluators_configs"


def found(name: str, key: str) -> Mapping[str, Any]:
    """The config of an annotator; one of a pool is named FOLDER/ANNOTATOR."""
    import yaml

    folder, _, member = name.partition("/")
    known = sorted(path.parent.name for path in configs().glob("*/configs.yaml"))
    if folder not in known:
        text = f"there is no such annotator; {suggestion(folder, known)}known: {', '.join(known)}"
        raise PlanError(f"{key}={name}: {text}")
    annotators = yaml.safe_load((configs() / folder / "configs.yaml").read_text(encoding="utf-8"))
    member = member or (next(iter(annotators)) if len(annotators) == 1 else "")
    if member not in annotators:
        told = ", ".join(f"{folder}/{annotator}" for annotator in annotators)
        raise PlanError(f"{key}={name}: it has several annotators; name one of them: {told}")
    config: Mapping[str, Any] = annotators[member]
    return config


def _model(config: Mapping[str, Any], told: Mapping[str, Any], name: str, key: str) -> str:
    """The config's own model, where an endpoint of OpenAI's kind may have it."""
    model, provider = str(told.get("model_name", "")), config.get("fn_completions", "")
    if provider == "openai_completions" and not model.startswith("/"):
        return model
    raise PlanError(
        f"{key}.name={name}: alpaca-eval asks {model} through {provider}, which is no OpenAI-compatible "
        f"endpoint; set {key}.model to a model of your endpoint, which then gets the same prompt"
    )


def _reading(config: Mapping[str, Any]) -> Reading:
    arguments = json.loads(json.dumps(config.get("completion_parser_kwargs") or {}))  # keys become text
    return Reading(
        by="alpaca_eval", parser=config.get("fn_completion_parser", "regex_parser"), arguments=arguments
    )


@contextmanager
def contained() -> Iterator[None]:
    """Undoes what importing alpaca-eval does to the process, and hides what the import warns of."""
    level, environment = logging.getLogger().level, dict(os.environ)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
            yield
    finally:
        logging.getLogger().setLevel(level)
        os.environ.clear()
        os.environ.update(environment)


def parsed(reading: Reading) -> "Read":
    """alpaca-eval's parser on answers that are what was asked for as a whole: an echo is no verdict."""
    with contained():
        from alpaca_eval import completion_parsers

    assert reading.parser is not None
    parser, arguments = getattr(completion_parsers, reading.parser), dict(reading.arguments)
    if reading.parser == "regex_parser":
        arguments = {"outputs_to_match": {int(k): v for k, v in arguments["outputs_to_match"].items()}}
    prepare = PREPARE[reading.parser]

    def read(answer: Answer, pairs: int) -> Sequence[float]:
        try:
            told = [float(x) for x in parser(prepare(answer, pairs, arguments), **arguments)]
        except Exception as error:  # the parsers raise whatever their libraries do
            raise Unparsable(str(error) or type(error).__name__) from None
        if len(told) != pairs or not all(x in (0, 1.5) or 1 <= x <= 2 for x in told):
            raise Unparsable(
                f"{len(told)} verdicts for {pairs} pairs" if len(told) != pairs else "no verdict"
            )
        return [1.5 if x == 0 else x for x in told]

    return read


def _matched(answer: Answer, pairs: int, arguments: Mapping[str, Any]) -> str:
    """What answers for one pair must begin with; for several, headings stand between.

    Some expressions want the line or the space that a model without chat begins with.
    """
    text = answer.text.strip()
    patterns = arguments["outputs_to_match"].values()
    for candidate in (f"\n{text}", f" {text}"):
        starts = [m.start() for p in patterns for m in re.finditer(p, candidate)]
        if len(starts) == pairs and (pairs > 1 or _is_anchored(candidate, starts[0], text)):
            return candidate
    raise Unparsable(
        f"not one choice for each of {pairs} pairs" if pairs > 1 else "no choice at its beginning"
    )


def _is_anchored(candidate: str, start: int, text: str) -> bool:
    """Nothing before it, or the whole is JSON, in which an explanation may come first."""
    return not candidate[:start].strip() or (text.startswith("{") and text.endswith("}"))


def _ranked(answer: Answer, pairs: int, arguments: Mapping[str, Any]) -> str:
    """A ranking of two models, the first and the second, and nothing else."""
    import ast

    text = unfenced(answer.text).strip()
    ranks = sorted(entry["rank"] for entry in ast.literal_eval(text))
    if ranks != [1, 2]:
        raise Unparsable(f"the ranks are {ranks}")
    return text


def _structured(answer: Answer, pairs: int, arguments: Mapping[str, Any]) -> str:
    """An object of JSON with a ranking in it. alpaca-eval would look for a code fence inside its texts."""
    told = json.loads(unfenced(answer.text))
    ranking = told[arguments["parsers_to_kwargs"]["json_parser"]["annotation_key"]]
    if sorted(entry["rank"] for entry in ranking) != [1, 2]:
        raise Unparsable("the ranks are not 1 and 2")
    return json.dumps(told).replace("```", "'''")


def _scored(answer: Answer, pairs: int, arguments: Mapping[str, Any]) -> str:
    """Two scores on the first line."""
    return unfenced(answer.text).strip()


def _likely(answer: Answer, pairs: int, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Tokens with their probabilities. Behind an explanation the last one must be the label that was said."""
    if not answer.top_logprobs:
        raise Unparsable("no log-probabilities: the endpoint does not give any")
    if arguments.get("log_prob_index") == -1 and not answer.text.endswith(
        tuple(arguments["denominator_tokens"])
    ):
        raise Unparsable("it does not end with a label")
    content = [
        {"top_logprobs": [{"token": token, "logprob": value} for token, value in tokens.items()]}
        for tokens in answer.top_logprobs
    ]
    return {"logprobs": {"content": content}}


PREPARE: Mapping[str, Any] = {
    "regex_parser": _matched,
    "ranking_parser": _ranked,
    "pipeline_meta_parser": _structured,
    "lmsys_parser": _scored,
    "logprob_parser": _likely,
}
