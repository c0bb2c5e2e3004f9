"""What people's labels amount to: one preference for each pair, and how far they agreed."""

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import combinations
from typing import Any, Literal

from alpacafarm.label.labels import Label
from alpacafarm.stats.agreement import krippendorff_alpha, of_two, pairwise_agreement
from alpacafarm.types import Pair, Preference

Count = Literal["majority", "mean"]
SHOWN_PEOPLE = 8  # kappas are told for each two of so many at most


def by_pair(labels: Iterable[Label]) -> dict[str, list[Label]]:
    found: dict[str, list[Label]] = {}
    for label in labels:
        found.setdefault(label.pair, []).append(label)
    return found


def judged(
    pairs: Iterable[Pair], labels: Iterable[Label], *, labels_per_pair: int, count: Count
) -> list[Preference]:
    """The pairs that have all their labels and a verdict among them, in the order of `pairs`."""
    given = by_pair(labels)
    rows = []
    for pair in pairs:
        own = given.get(pair.id, [])
        verdicts = [label for label in own if label.preference is not None]
        if len(own) >= labels_per_pair and verdicts:
            people = ", ".join(sorted(label.labeller for label in verdicts))
            preference = counted([float(label.preference or 0) for label in verdicts], count)
            rows.append(Preference(**asdict(pair), preference=preference, annotator=people))
    return rows


def counted(preferences: Sequence[float], count: Count) -> float:
    """`majority`: what more people said than anything else, a tie (1.5) where there is no such thing; `mean`:
    the mean, which methods read as a probability."""
    if count == "mean":
        return statistics.fmean(preferences)
    (most, votes), *rest = Counter(preferences).most_common()
    return 1.5 if rest and rest[0][1] == votes else most


def agreement(labels: Iterable[Label]) -> dict[str, Any]:
    """On the pairs with two verdicts or more: how many they are, the share of equal verdicts, Krippendorff's
    alpha, and Cohen's kappa of each two people (at most of the eight who gave most)."""
    given: dict[str, Mapping[str, str]] = {}
    people: Counter[str] = Counter()
    for pair, own in by_pair(label for label in labels if label.preference is not None).items():
        given[pair] = {label.labeller: label.choice for label in own}
        people.update(given[pair].keys())
    units = [list(own.values()) for own in given.values() if len(own) > 1]
    kappas = []
    for first, second in combinations(sorted(name for name, _ in people.most_common(SHOWN_PEOPLE)), 2):
        both, kappa = of_two(given, first, second)
        if both:
            kappas.append({"first": first, "second": second, "pairs": both, "kappa": kappa})
    return {
        "pairs": len(units),
        "equal": pairwise_agreement(units),
        "alpha": krippendorff_alpha(units),
        "kappas": kappas,
    }
