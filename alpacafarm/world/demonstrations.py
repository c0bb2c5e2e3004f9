"""Written answers of markedly mixed quality, from which the base and the SFT model learn.

Faults are frequent and independent so that a model's answers, too, have about one fault each: that is the
headroom of learning from feedback. Their probabilities come from a prototype in which PPO gained on the true
preference.
"""

import random
from collections.abc import Callable, Sequence
from enum import Enum

from alpacafarm.world.forms import ANSWERS, CLOSERS, EXTRAS, LETTERS, OFF_TOPIC, OPENERS, RUDE, VAGUE
from alpacafarm.world.tables import ACTIVITIES, CAPITALS, DAY_PARTS, EVENTS, FACTS, GIFTS, NAMES, VENUES
from alpacafarm.world.tasks import Task, context, selection

Chance = Callable[[float], bool]  # does the fault with this probability occur?


class Quality(Enum):
    """How often faults occur, relative to the SFT demonstrations."""

    WEB = 1.25
    SFT = 1.0
    REFERENCE = 0.15
    FLAWLESS = 0.0


RUDE_PROBABILITY = 0.22
VAGUE_PROBABILITY = 0.22
OFF_TOPIC_PROBABILITY = 0.24
CUT_OFF_PROBABILITY = 0.15
REPEATED_PROBABILITY = 0.12

# Not faults: how often an answer has 0, 1 or 2 extra sentences, an opener, a closer, and another closer.
EXTRAS_WEIGHTS = (60, 30, 10)
OPENER_PROBABILITY = 0.25
CLOSER_PROBABILITY = 0.25
NEXT_CLOSER_PROBABILITY = 0.30
MAX_CLOSERS = 3

# The probability that each sentence of a right answer is missing, in the order of `ANSWERS`.
MISSING = {
    "email": (0.22, 0.05, 0.22, 0.22),
    "note": (0.22, 0.05, 0.22),
    "words": (0.0,),
    "rewrite": (0.0,),
    "describe": (0.0,),
    "how_to": (0.12, 0.12, 0.12),
    "capital": (0.0,),
    "thanks": (0.22, 0.05, 0.22),
    "invitation": (0.20, 0.05, 0.25, 0.20),
    "comparison": (0.05, 0.20, 0.25),
}
# Slots of a right answer that are filled wrongly: slot, probability, what stands there instead.
WRONG: dict[str, tuple[tuple[str, float, Sequence[str]], ...]] = {
    "email": (("to", 0.10, NAMES),),
    "note": (("to", 0.10, NAMES), ("day", 0.10, ("Monday", "Friday", "Sunday"))),
    "words": (("second", 0.30, ("house",)),),
    "rewrite": (("manner", 0.30, ("just", "finally")),),
    "describe": (("adjective", 0.30, ("nice",)),),
    "how_to": (),
    "capital": (("city", 0.20, tuple(CAPITALS.values())),),
    "thanks": (("to", 0.10, NAMES), ("gift", 0.15, GIFTS)),
    "invitation": (("event", 0.08, EVENTS), ("venue", 0.08, VENUES)),
    "comparison": (("other_fact", 0.12, tuple(FACTS.values())),),
}
LIST_TOO_SHORT_PROBABILITY = 0.25
LIST_TOO_LONG_PROBABILITY = 0.12  # if not too short
EXCLUDED_ITEM_PROBABILITY = 0.30
TIP_MISSING_PROBABILITY = 0.30
PLAN_PART_MISSING_PROBABILITY = 0.25
PLAN_IGNORES_REQUIRED_PROBABILITY = 0.30
PLAN_OTHER_PLACE_PROBABILITY = 0.12


def demonstrate(task: Task, rng: random.Random, quality: Quality) -> str:
    """One answer to the task, as good as `quality` lets it be."""
    return compose(task, rng, lambda probability: rng.random() < probability * quality.value)


def compose(task: Task, rng: random.Random, chance: Chance) -> str:
    """An answer with the faults that `chance` lets happen; it is asked once for each possible fault."""
    num_extras = min(len(EXTRAS[task.family]), rng.choices(range(len(EXTRAS_WEIGHTS)), EXTRAS_WEIGHTS)[0])
    extras = rng.sample(EXTRAS[task.family], num_extras)
    openers = [rng.choice(OPENERS)] if rng.random() < OPENER_PROBABILITY else []
    closers = _closers(rng)

    body = _body(task, rng, chance)
    before_signature = len(body) - 1 if task.family in LETTERS else len(body)
    body[before_signature:before_signature] = extras
    if chance(REPEATED_PROBABILITY):
        place = rng.randrange(len(body))
        body.insert(place, body[place])
    vague = [rng.choice(VAGUE)] if chance(VAGUE_PROBABILITY) else []
    rude = [rng.choice(RUDE)] if chance(RUDE_PROBABILITY) else []
    off_topic = [rng.choice(OFF_TOPIC)] if chance(OFF_TOPIC_PROBABILITY) else []
    sentences = [*openers, *rude, *vague, *body, *off_topic, *closers]
    if chance(CUT_OFF_PROBABILITY):
        sentences[-1] = _cut(sentences[-1], rng)
    return " ".join(sentences)


def _closers(rng: random.Random) -> list[str]:
    count = 0
    while count < MAX_CLOSERS and rng.random() < (NEXT_CLOSER_PROBABILITY if count else CLOSER_PROBABILITY):
        count += 1
    return rng.sample(CLOSERS, count)


def _cut(sentence: str, rng: random.Random) -> str:
    """Loses up to three words, never all of them: the text before would end well."""
    words = sentence.split()
    return " ".join(words[: -rng.randint(1, min(3, len(words) - 1))])


def _body(task: Task, rng: random.Random, chance: Chance) -> list[str]:
    if task.family == "list":
        return [_list(task, rng, chance)]
    if task.family == "tips":
        choice = selection(task)
        return rng.sample(choice.allowed, choice.number - chance(TIP_MISSING_PROBABILITY))
    if task.family == "plan":
        return _plan(task, rng, chance)
    words = context(task)
    for slot, probability, instead in WRONG[task.family]:
        if chance(probability):
            words[slot] = rng.choice([word for word in instead if word != words[slot]])
    sentences = [sentence.format_map(words) for sentence in ANSWERS[task.family]]
    kept = [
        s for s, probability in zip(sentences, MISSING[task.family], strict=True) if not chance(probability)
    ]
    return kept or [rng.choice(sentences)]


def _list(task: Task, rng: random.Random, chance: Chance) -> str:
    choice = selection(task)
    number = choice.number
    if chance(LIST_TOO_SHORT_PROBABILITY):
        number -= 1
    elif chance(LIST_TOO_LONG_PROBABILITY):
        number += 1
    items = rng.sample(choice.allowed, number)
    excluded = task.details.get("excluded")
    if excluded is not None and chance(EXCLUDED_ITEM_PROBABILITY):
        items[rng.randrange(number)] = str(excluded)
    return f"Some {task.details['category']} are {', '.join(items)}."


def _plan(task: Task, rng: random.Random, chance: Chance) -> list[str]:
    choice = selection(task)
    others = [activity for activity in choice.allowed if activity != choice.required]
    activities = rng.sample(others, choice.number)
    # Each fault strikes a part of its own: the required one, the one before it, and the third.
    required_at = rng.randrange(choice.number)
    if not chance(PLAN_IGNORES_REQUIRED_PROBABILITY):
        activities[required_at] = str(choice.required)
    if chance(PLAN_OTHER_PLACE_PROBABILITY):
        elsewhere = rng.choice([place for place in ACTIVITIES if place != task.details["place"]])
        activities[required_at - 1] = rng.choice(ACTIVITIES[elsewhere])
    sentences = [f"In the {part}, {activity}." for part, activity in zip(DAY_PARTS, activities, strict=True)]
    if chance(PLAN_PART_MISSING_PROBABILITY):
        del sentences[required_at - 2]
    return sentences
