"""The true preference of the world. Annotators see it through a haze, trained models never.

An output is read into a few counts, and the counts are weighed. The weights come from a prototype and were
fixed before any model was trained.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from alpacafarm.world.forms import ANSWERS, CLOSERS, EXTRAS, OFF_TOPIC, ONE_SENTENCE, OPENERS, RUDE, VAGUE
from alpacafarm.world.tables import DAY_PARTS, FACTS, TIPS
from alpacafarm.world.tasks import Selection, Task, context, selection, wanted

EQUAL_TO = 1e-9  # scores this close are a tie
EXTRAS_VALUE = (0.0, 0.3, 0.4)  # by number of extra sentences; more add nothing
PLEASANTRIES_VALUE = (0.0, 0.15, 0.0)  # one is welcome, two are not, and each further one costs
PLEASANTRY_COST = 0.35
EXTRA_SENTENCE_COST = 0.15  # where one sentence was asked for

Kind = Literal["pleasantry", "rude", "vague", "off_topic", "extra", "answer", "garbled"]


@dataclass(frozen=True)
class Reading:
    """What a careful reader sees in one output."""

    completion: float  # of the task itself, in [0, 1]
    extras: int  # sentences that make the answer richer
    pleasantries: int
    rude: int
    vague: int
    off_topic: int
    garbled: int
    repeated: int
    ended: bool  # the text ends in . ! or ?
    words: int
    extra_sentences: int  # beyond the one that was asked for


@dataclass(frozen=True)
class Weights:
    """What completion is worth and what each fault costs. The defaults are the true ones."""

    completion: float = 2.0
    rude: float = 0.8
    vague: float = 0.5
    off_topic: float = 0.6
    garbled: float = 0.6
    repeated: float = 0.6
    unended: float = 0.8


GOLD = Weights()


def read(task: Task, output: str) -> Reading:
    """Counts what is in the output. A sentence said again counts as repeated and as nothing else."""
    text = output.strip()
    sentences = _SENTENCE_END.split(text) if text else []
    ended = text.endswith((".", "!", "?"))
    distinct = list(dict.fromkeys(sentences))
    # A cut last sentence is charged once, as unended.
    kinds = [_kind_in(task.family, sentence) for sentence in distinct]
    garbled = kinds.count("garbled")
    if not ended and sentences and _kind(sentences[-1]) == "garbled":
        garbled -= 1
    return Reading(
        completion=_completion(
            task, [s for s, kind in zip(distinct, kinds, strict=True) if kind == "answer"]
        ),
        extras=kinds.count("extra"),
        pleasantries=kinds.count("pleasantry"),
        rude=kinds.count("rude"),
        vague=kinds.count("vague"),
        off_topic=kinds.count("off_topic"),
        garbled=garbled,
        repeated=len(sentences) - len(distinct),
        ended=ended,
        words=len(text.split()),
        extra_sentences=max(0, len(sentences) - 1) if task.family in ONE_SENTENCE else 0,
    )


def base_score(reading: Reading, weights: Weights) -> float:
    """What gold and annotators have in common: completion less the faults."""
    return (
        weights.completion * reading.completion
        - weights.rude * reading.rude
        - weights.vague * reading.vague
        - weights.off_topic * reading.off_topic
        - weights.garbled * reading.garbled
        - weights.repeated * reading.repeated
        - weights.unended * (not reading.ended)
    )


def score(reading: Reading) -> float:
    """The true worth of an output."""
    pleasantries = PLEASANTRIES_VALUE[min(reading.pleasantries, len(PLEASANTRIES_VALUE) - 1)]
    too_pleasant = max(0, reading.pleasantries - len(PLEASANTRIES_VALUE) + 1)
    return (
        base_score(reading, GOLD)
        + EXTRAS_VALUE[min(reading.extras, len(EXTRAS_VALUE) - 1)]
        + pleasantries
        - PLEASANTRY_COST * too_pleasant
        - EXTRA_SENTENCE_COST * reading.extra_sentences
    )


def preference(task: Task, output_1: str, output_2: str) -> float:
    """1 if the first output is truly better, 2 if the second is, 1.5 if they are equally good."""
    margin = score(read(task, output_1)) - score(read(task, output_2))
    if abs(margin) <= EQUAL_TO:
        return 1.5
    return 1.0 if margin > 0 else 2.0


_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_LIST = re.compile(r"Some (\w+) are ([\w, ]+)\.")
_PLAN = re.compile(rf"In the ({'|'.join(DAY_PARTS)}), ([\w ]+)\.")
_ALL_TIPS = frozenset(tip for tips in TIPS.values() for tip in tips)
_EXTRAS = {family: frozenset(extras) for family, extras in EXTRAS.items()}
_KINDS: dict[str, Kind] = {
    **dict.fromkeys((*OPENERS, *CLOSERS), "pleasantry"),
    **dict.fromkeys(RUDE, "rude"),
    **dict.fromkeys(VAGUE, "vague"),
    **dict.fromkeys(OFF_TOPIC, "off_topic"),
    **dict.fromkeys((extra for extras in EXTRAS.values() for extra in extras), "extra"),
    **dict.fromkeys(_ALL_TIPS, "answer"),
}
_FACT = "|".join(FACTS.values())
_PHRASES = {"ask", "request", "first_step", "second_step", "third_step"}  # slots that hold several words
# The word a one-sentence answer must be about to be worth anything when it is wrong.
_SUBJECT = {"words": "first", "describe": "animal", "rewrite": "request"}


def _answer_pattern(sentence: str) -> str:
    """A regular expression for an answer's sentence with anything in its slots."""
    pattern = re.sub(r"[.?]", r"\\\g<0>", sentence)
    pattern = re.sub(r"\{(other_)?fact\}", f"(?:{_FACT})", pattern)
    return re.sub(r"\{(\w+)\}", lambda slot: r"[\w ]+" if slot[1] in _PHRASES else r"\w+", pattern)


_ANSWER = re.compile(
    "|".join(
        [_LIST.pattern, _PLAN.pattern]
        + [_answer_pattern(sentence) for sentences in ANSWERS.values() for sentence in sentences]
    )
)


@lru_cache(maxsize=1 << 16)
def _kind(sentence: str) -> Kind:
    if sentence in _KINDS:
        return _KINDS[sentence]
    return "answer" if _ANSWER.fullmatch(sentence) else "garbled"


def _kind_in(family: str, sentence: str) -> Kind:
    """Another family's extra sentence is off topic."""
    kind = _kind(sentence)
    return "off_topic" if kind == "extra" and sentence not in _EXTRAS[family] else kind


@lru_cache(maxsize=1 << 16)
def _wanted(task: Task) -> frozenset[str]:
    return frozenset(wanted(task))


def _completion(task: Task, answers: Sequence[str]) -> float:
    """How well the sentences that look like an answer answer this task, in [0, 1]."""
    if task.family not in ANSWERS:
        return _selection_completion(selection(task), _items(task.family, answers))
    right = _wanted(task)
    num_right = sum(sentence in right for sentence in answers)
    num_wrong = len(answers) - num_right
    if len(right) > 1:
        # A wrong sentence in an incomplete answer mostly stands for the missing one, which is charged for.
        wrong_cost = 0.3 if num_right == len(right) else 0.1
        return max(0.0, 1 - 0.4 * (len(right) - num_right) - wrong_cost * num_wrong)
    if num_right:
        return max(0.0, 1 - 0.4 * num_wrong)
    subject = _SUBJECT.get(task.family)
    is_about_it = bool(answers and subject and context(task)[subject] in answers[0].lower())
    return 0.4 if is_about_it else 0.0


def _items(family: str, answers: Sequence[str]) -> list[str]:
    """The items an answer chooses; what is no item of this family stays a whole sentence and is wrong."""
    if family == "list":
        return _list_items(answers)
    return _plan_items(answers) if family == "plan" else list(answers)


def _list_items(answers: Sequence[str]) -> list[str]:
    items: list[str] = []
    for sentence in answers:
        match = _LIST.fullmatch(sentence)
        items += [item.strip() for item in match[2].split(",")] if match else [sentence]
    return items


def _plan_items(answers: Sequence[str]) -> list[str]:
    """The activities of a plan; a part of the day counts once."""
    items: list[str] = []
    parts: set[str] = set()
    for sentence in answers:
        match = _PLAN.fullmatch(sentence)
        if match is None or match[1] in parts:
            items.append(sentence)
            continue
        parts.add(match[1])
        items.append(match[2])
    return items


def _selection_completion(choice: Selection, items: Sequence[str]) -> float:
    right = {item for item in items if item in choice.allowed}
    if not right:
        return 0.0
    num_wrong = len(items) - len(right)
    lacks_required = choice.required is not None and choice.required not in right
    return max(0.0, 1 - 0.4 * (abs(len(right) - choice.number) + num_wrong + lacks_required))
