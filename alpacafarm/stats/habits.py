"""How an annotator errs beyond what its judge says: biases, flips, ties, abstention, drift.

All that is random comes from uniform numbers that are drawn from the annotator and the pair, so a judgement
depends on nothing else, and swapping the outputs mirrors it. Drift alone also depends on the pair's place.

A judge's preference q is 1 or 2, or between them a probability. The annotator leans towards output 2 by

    lean = position * s + length * ln((len_2 + 1) / (len_1 + 1)) + style * (list_2 - list_1)     (nats)

where s is +1 if output 2 is shown first and -1 otherwise, len counts characters, and list is 1 for an output
that has a list. A probability is shifted in its logit: q - 1 becomes sigmoid(logit(q - 1) + lean). A decision
for the lean is kept, one against it is overturned with probability tanh(|lean| / 2): so often does a standard
logistic variable of a given sign change it when |lean| is taken off. So without a lean nothing changes, and
of decisions like fair coins sigmoid(lean) are for output 2: the lean is the log-odds of an annotator's choice
between equally good outputs.
"""

import math
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alpacafarm.stats.seeds import stable_seed

# As alpaca_eval.utils.contains_list, whose annotator statistics these are comparable with.
LIST = re.compile(r"^\s*(?:[*•-]\s*|\d+[.)]\s*|[a-zA-Z][.)]\s+)[^\w\n]*\w", re.MULTILINE)


@dataclass(frozen=True)
class Habits:
    """One annotator's faults; all zero is none."""

    flip: float  # probability that a verdict is reversed
    position: float  # nats towards the output that is shown first
    length: float  # nats per factor e of length: at 1, twice as long is twice as likely
    style: float  # nats towards an output with a list
    tie: float  # probability of a tie, whatever the outputs
    abstain: float  # probability of no verdict
    drift: float  # what the flip probability has gained by the last pair, linear in the pair's place


NO_HABITS = Habits(flip=0, position=0, length=0, style=0, tie=0, abstain=0, drift=0)


@dataclass(frozen=True)
class Chance:
    """Uniform numbers of one annotator and one pair. What a probability does, a higher one does too."""

    order: float  # below one half: the output that sorts first is shown first
    overturn: float
    flip: float
    tie: float
    abstain: float


def chance(seed: int, annotator: str, texts: Sequence[str]) -> Chance:
    """Drawn from `texts`: what tells the pair apart, its outputs sorted, so that swapping changes nothing."""
    rng = random.Random(stable_seed("annotator habits", seed, annotator, *texts))
    return Chance(*(rng.random() for _ in range(5)))


def drawn(weights: Mapping[str, float], seed: int, texts: Sequence[str]) -> str:
    """The name of the annotator of a pair, each with a probability in proportion to its weight."""
    names = sorted(weights)  # the order of a mapping is no part of its value
    rng = random.Random(stable_seed("annotator of the pair", seed, *texts))
    return rng.choices(names, [weights[name] for name in names])[0]


def abstains(habits: Habits, luck: Chance) -> bool:
    return luck.abstain < habits.abstain


def ties(habits: Habits, luck: Chance) -> bool:
    """Whether an annotator that does not abstain calls the pair a tie without looking."""
    return luck.tie < habits.tie


def asked_share(habits: Habits) -> float:
    """Of the pairs, those that a judge is asked about: neither abstained from nor called a tie unseen."""
    return (1 - habits.abstain) * (1 - habits.tie)


def habitual(
    preference: float, output_1: str, output_2: str, *, habits: Habits, luck: Chance, place: float
) -> float:
    """The annotator's preference, in [1, 2], where its judge says `preference`.

    `place`: 0 for the first pair, 1 for the last. Equal outputs and zero habits leave it as it is.
    """
    if output_1 == output_2:
        return preference
    if output_1 > output_2:  # mirrored to the order that `luck` speaks of; 3 - x is exact in [1, 2]
        return 3 - habitual(3 - preference, output_2, output_1, habits=habits, luck=luck, place=place)
    towards_2 = lean(habits, output_1, output_2, first_shown=luck.order < 0.5)
    found = biased(preference, towards_2, luck.overturn)
    return 3 - found if luck.flip < habits.flip + habits.drift * place else found


def lean(habits: Habits, output_1: str, output_2: str, *, first_shown: bool) -> float:
    """Nats towards output 2, where output 1 was the `first_shown` or not."""
    return (
        habits.position * (-1 if first_shown else 1)
        + habits.length * math.log((len(output_2) + 1) / (len(output_1) + 1))
        + habits.style * (has_list(output_2) - has_list(output_1))
    )


def biased(preference: float, towards_2: float, uniform: float) -> float:
    """A preference shifted by a lean, see above."""
    if towards_2 == 0:
        return preference
    if preference in (1, 2):
        against = (preference == 1) == (towards_2 > 0)
        return 3 - preference if against and uniform < math.tanh(abs(towards_2) / 2) else preference
    logit = math.log((preference - 1) / (2 - preference)) + towards_2
    return 1 + 0.5 * (1 + math.tanh(logit / 2))


def has_list(text: str) -> bool:
    """Whether a line begins like an item: a bullet, a number or a letter with a full stop or bracket."""
    return LIST.search(text) is not None
