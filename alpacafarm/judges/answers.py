"""How the answer of an asked judge is read. What was asked for is a verdict; all else is unparsable."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from alpacafarm.request import Answer

FIRST, SECOND = "m", "M"  # alpaca-eval's names for the answers: single tokens that suggest no order
CHOICE = "best"  # the key of a structured answer
BEGINNING = 200  # characters of an unparsable answer that a failure tells
FENCED = re.compile(r"\s*```(?:json|python)?[ \t]*\n(.*?)\n?```\s*", re.DOTALL)
DRESS = " \t\n\"'`*."  # what models put around a bare label


class Unparsable(ValueError):  # noqa: N818  # the answer is at fault, not the program
    """The answer is none of those that were asked for."""


def label(answer: Answer) -> float:
    """1 or 2 where the whole answer is a label."""
    return _preference(answer.text.strip(DRESS))


def choice(answer: Answer) -> float:
    """1 or 2 where the whole answer is an object with the label under `best`, once."""
    try:
        told = json.loads(unfenced(answer.text), object_pairs_hook=_no_key_twice)
    except (ValueError, RecursionError) as error:
        raise Unparsable(str(error)) from None
    if not isinstance(told, Mapping) or not isinstance(told.get(CHOICE), str):
        raise Unparsable(f"no {CHOICE}")
    return _preference(told[CHOICE])


def logprobs(answer: Answer) -> float:
    """Between 1 and 2: 2 - p(m) / (p(m) + p(M)) of the first token, as alpaca-eval's weighted annotators.

    A label that is not among the most probable tokens has probability zero; with neither there is no verdict.
    """
    if not answer.top_logprobs:
        raise Unparsable("no log-probabilities: the endpoint does not give any; set answer=label")
    return weighted(answer.top_logprobs[0])


def weighted(logprob: Mapping[str, float]) -> float:
    """The preference that the log-probabilities (nats) of the two labels amount to."""
    first, second = (logprob.get(name, -math.inf) for name in (FIRST, SECOND))
    if math.isnan(first + second):
        raise Unparsable("a log-probability is not a number")
    if first == second == -math.inf:
        raise Unparsable("neither label is among the most probable tokens")
    lead = second - first
    return 2 - (1 / (1 + math.exp(lead)) if lead < 700 else 0.0)  # exp of more overflows


def _preference(told: str) -> float:
    if told not in (FIRST, SECOND):
        raise Unparsable("no label")
    return 1.0 if told == FIRST else 2.0


def unfenced(text: str) -> str:
    """Without the code fence around the whole, if it has one."""
    fenced = FENCED.fullmatch(text)
    return fenced[1] if fenced else text


def _no_key_twice(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) < len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)


def beginning(answer: Answer) -> str:
    text = answer.text
    return repr(text[:BEGINNING]) + ("..." if len(text) > BEGINNING else "")
