"""Tasks of the embedded world: requests in English, the splits they belong to, and what a right answer says.

The world is finite. Every task is enumerated once, so parsing is a look-up, and held-out tasks are set apart
by construction: a quarter of the texts of every form belong to eval, another quarter to val, the rest to
training.
"""

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate, product
from string import Formatter
from typing import Literal

from alpacafarm.world.forms import ANSWERS, DERIVED, FORMS, WEIGHTS, Form
from alpacafarm.world.tables import (
    ACTIVITIES,
    ADJECTIVES,
    CAPITALS,
    CATEGORIES,
    DAY_PARTS,
    DAYS,
    EVENTS,
    FACTS,
    GIFTS,
    MATTERS,
    NAMES,
    NOUNS,
    NUMBERS,
    REQUESTS,
    STEPS,
    TIPS,
    VENUES,
)

Split = Literal["pretrain", "sft", "preference", "unlabeled", "val", "eval"]
Details = Mapping[str, str | int]


@dataclass(frozen=True)
class Task:
    """A request. `details` are what it asks for; equal texts have equal details."""

    family: str
    details: Details = field(hash=False)
    instruction: str
    input: str = ""


@dataclass(frozen=True)
class Selection:
    """What an answer may choose from, how many items it must choose, and which one it must include."""

    allowed: tuple[str, ...]
    number: int
    required: str | None = None


@dataclass(frozen=True)
class _Shelf:
    """The tasks of one form, by what they may be used for."""

    eval: tuple[Task, ...]
    val: tuple[Task, ...]
    train: tuple[Task, ...]


def tasks(split: Split, n: int, seed: int) -> list[Task]:
    """`n` tasks in random order.

    Those of val and eval are distinct and stratified by family and form. The other splits draw independently
    from the same training tasks, so they repeat and share texts; a shorter draw begins a longer one.
    """
    rng = random.Random(f"tasks-{split}-{seed}")
    if split == "val" or split == "eval":
        return _held_out(split, n, rng)
    shelves = _shelves()
    families = list(WEIGHTS)
    cumulative = list(accumulate(WEIGHTS.values()))
    return [
        rng.choice(rng.choice(shelves[rng.choices(families, cum_weights=cumulative)[0]]).train)
        for _ in range(n)
    ]


def parse(instruction: str, input: str) -> Task | None:
    """The task with this text, or None if the world has none."""
    return _tasks_by_text().get((instruction, input))


def context(task: Task) -> dict[str, str]:
    """What fills the slots of the task's right answer: its details and what the tables know of them."""
    details = {slot: str(value) for slot, value in task.details.items()}
    derived = {slot: table[details[source]] for slot, (source, table) in DERIVED.items() if source in details}
    return details | derived | {"manner": "please"}


def wanted(task: Task) -> tuple[str, ...]:
    """The sentences of the task's right answer; none for families that leave a choice (see `selection`)."""
    if task.family not in ANSWERS:
        return ()
    words = context(task)
    return tuple(sentence.format_map(words) for sentence in ANSWERS[task.family])


def selection(task: Task) -> Selection:
    """What an answer to a list, tips or plan may choose from."""
    details = task.details
    if task.family == "list":
        words = CATEGORIES[str(details["category"])]
        excluded = details.get("excluded")
        return Selection(tuple(word for word in words if word != excluded), int(details["number"]))
    if task.family == "tips":
        return Selection(TIPS[str(details["topic"])], int(details["number"]))
    assert task.family == "plan", task.family
    return Selection(ACTIVITIES[str(details["place"])], len(DAY_PARTS), str(details["required"]))


def apportion(n: int, weights: Sequence[float], capacities: Sequence[int]) -> list[int]:
    """Splits `n` by weight with the largest-remainder method; what exceeds a capacity goes to the others."""
    assert n <= sum(capacities), (n, sum(capacities))
    shares = [0] * len(weights)
    while (left := n - sum(shares)) > 0:
        is_open = [share < capacity for share, capacity in zip(shares, capacities, strict=True)]
        total = sum(weight for weight, is_free in zip(weights, is_open, strict=True) if is_free)
        exact = [
            left * weight / total if is_free else 0.0
            for weight, is_free in zip(weights, is_open, strict=True)
        ]
        whole = [int(quota) for quota in exact]
        by_remainder = sorted(range(len(exact)), key=lambda i: whole[i] - exact[i])
        for i in by_remainder[: left - sum(whole)]:
            whole[i] += 1
        shares = [min(a + b, capacity) for a, b, capacity in zip(shares, whole, capacities, strict=True)]
    return shares


def _held_out(split: Literal["val", "eval"], n: int, rng: random.Random) -> list[Task]:
    pools = {
        family: [shelf.eval if split == "eval" else shelf.val for shelf in shelves]
        for family, shelves in _shelves().items()
    }
    capacities = [sum(map(len, pools[family])) for family in WEIGHTS]
    if n > sum(capacities):
        raise ValueError(f"{split} has {sum(capacities)} distinct tasks, {n} were asked for; ask for fewer")
    drawn: list[Task] = []
    for family, share in zip(WEIGHTS, apportion(n, list(WEIGHTS.values()), capacities), strict=True):
        forms = pools[family]
        counts = apportion(share, [1.0] * len(forms), list(map(len, forms)))
        for pool, count in zip(forms, counts, strict=True):
            drawn += rng.sample(pool, count)
    rng.shuffle(drawn)
    return drawn


@cache
def _shelves() -> dict[str, list[_Shelf]]:
    return {family: [_shelf(family, form) for form in forms] for family, forms in FORMS.items()}


def _shelf(family: str, form: Form) -> _Shelf:
    """Divides the tasks of a form by the rank of a stable hash; a threshold would leave shares to chance."""
    ranked = sorted(_tasks_of(family, form), key=_stable_hash)
    quarter = len(ranked) // 4
    return _Shelf(tuple(ranked[:quarter]), tuple(ranked[quarter : 2 * quarter]), tuple(ranked[2 * quarter :]))


def _stable_hash(task: Task) -> bytes:
    text = f"{task.instruction}\n{task.input}"
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


@cache
def _tasks_by_text() -> dict[tuple[str, str], Task]:
    return {
        (task.instruction, task.input): task
        for shelves in _shelves().values()
        for shelf in shelves
        for task in (*shelf.eval, *shelf.val, *shelf.train)
    }


def _tasks_of(family: str, form: Form) -> list[Task]:
    """The distinct tasks a form can word. A task's details are those its text tells."""
    slots = [slot for _, slot, _, _ in Formatter().parse(form.instruction + form.input) if slot]
    found = {}
    for details in _DETAILS[family]():
        told = {slot: details[slot] for slot in slots}
        words = {slot: NUMBERS[value] if isinstance(value, int) else value for slot, value in told.items()}
        text = form.instruction.format_map(words)
        given = form.input.format_map(words)
        task = Task(family, told, text, given[:1].upper() + given[1:])
        found[task.instruction, task.input] = task
    return list(found.values())


def _combine(**slots: Iterable[str | int]) -> list[Details]:
    """Every combination of the slots' values in which no two people, words or animals are the same."""
    rows = [dict(zip(slots, values, strict=True)) for values in product(*slots.values())]
    return [row for row in rows if len(set(row.values())) == len(row)]


_DETAILS: Mapping[str, Callable[[], list[Details]]] = {
    "list": lambda: [
        row
        for category, words in CATEGORIES.items()
        for row in _combine(number=range(2, 6), category=[category], excluded=words)
    ],
    "email": lambda: _combine(to=NAMES, sender=NAMES, matter=list(MATTERS)),
    "note": lambda: _combine(to=NAMES, sender=NAMES, event=EVENTS, day=DAYS),
    "words": lambda: _combine(first=NOUNS, second=NOUNS),
    "rewrite": lambda: _combine(request=REQUESTS),
    "describe": lambda: _combine(animal=list(FACTS), adjective=ADJECTIVES),
    "tips": lambda: _combine(number=range(2, 5), topic=list(TIPS)),
    "how_to": lambda: _combine(job=list(STEPS)),
    "capital": lambda: _combine(country=list(CAPITALS)),
    "thanks": lambda: _combine(to=NAMES, sender=NAMES, gift=GIFTS),
    "plan": lambda: [
        row
        for place, activities in ACTIVITIES.items()
        for row in _combine(place=[place], required=activities)
    ],
    "invitation": lambda: _combine(to=NAMES, sender=NAMES, event=EVENTS, venue=VENUES),
    "comparison": lambda: _combine(animal=list(FACTS), other=list(FACTS)),
}
