"""How good an annotator is, from pairs that were judged several times (Dubois et al. 2023, section 4.1).

The definitions are those of alpaca-eval's Analyzer with its absolute scoring rule. Where a majority is tied
it draws one of the most frequent verdicts; here each of them counts in equal parts, which is what the draw
gives on average.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, TypeVar

from alpacafarm.stats.habits import has_list

Pair = TypeVar("Pair", bound=Hashable)
Votes = Mapping[Pair, Sequence[float]]  # by pair: preferences, 1 to 2, 0 or 1.5 for a tie

LONGER_BY = 30  # characters, below which two answers count as equally long (get_length_biases)


@dataclass(frozen=True)
class Agreement:
    """`score` is 1 less the mean distance of the verdicts; the error is over pairs, None for a single one."""

    score: float
    standard_error: float | None
    n_pairs: int


def agreement(votes: Votes[Pair], gold: Votes[Pair]) -> Agreement | None:
    """A single verdict of `votes` against the majority of `gold`, on the pairs that both have."""
    return _over_pairs(votes, gold, lambda own, other: _closeness([[vote] for vote in own], [other]))


def bias(votes: Votes[Pair], gold: Votes[Pair]) -> float | None:
    """The error of the annotator's majority against gold's: what is left when its noise averages out."""
    found = _over_pairs(votes, gold, lambda own, other: _closeness([own], [other]))
    return None if found is None else 1 - found.score


def variance(votes: Votes[Pair]) -> float | None:
    """The error of one verdict against the majority of the annotator's others on the same pair.

    As many verdicts count as the pair with the fewest has, the first of each. None below two.
    """
    fewest = min(map(len, votes.values()), default=0)
    if fewest < 2:
        return None

    def left_out(own: Sequence[float], _: Sequence[float]) -> float:
        return (
            math.fsum(_closeness([[own[i]]], [[own[j] for j in others]]) for i, others in _splits(fewest))
            / fewest
        )

    found = _over_pairs(votes, votes, left_out)
    return None if found is None else 1 - found.score


def _splits(count: int) -> list[tuple[int, tuple[int, ...]]]:
    """Each place, and the others."""
    return [(({*range(count)} - {*others}).pop(), others) for others in combinations(range(count), count - 1)]


@dataclass(frozen=True)
class JudgedTexts:
    output_1: str
    output_2: str
    preference: float


def prefers_longer(pairs: Sequence[JudgedTexts]) -> float | None:
    """How often the preferred answer is the longer, where one is longer by more than 30 characters.

    None where there is no such pair. A tie prefers none and is left out.
    """
    return _share(
        len(better) > len(worse)
        for better, worse in _decided(pairs)
        if abs(len(better) - len(worse)) > LONGER_BY
    )


def prefers_lists(pairs: Sequence[JudgedTexts]) -> float | None:
    """How often the preferred answer is the one with a list, where exactly one has a list."""
    return _share(
        has_list(better) for better, worse in _decided(pairs) if has_list(better) != has_list(worse)
    )


def prefers_first(votes: Votes[Pair]) -> float | None:
    """The mean share of the win that goes to the first answer; 0.5 is no preference for a place."""
    all_votes = [_vote(vote) for found in votes.values() for vote in found]
    return 2 - math.fsum(all_votes) / len(all_votes) if all_votes else None


def _decided(pairs: Sequence[JudgedTexts]) -> list[tuple[str, str]]:
    """(preferred, other) of each pair that is no tie."""
    found = []
    for pair in pairs:
        vote = _vote(pair.preference)
        if vote != 1.5:
            texts = pair.output_1, pair.output_2
            found.append(texts if vote < 1.5 else texts[::-1])
    return found


def _share(claims: Any) -> float | None:
    found = list(claims)
    return sum(found) / len(found) if found else None


def _over_pairs(
    votes: Votes[Pair], gold: Votes[Pair], closeness: Callable[[Sequence[float], Sequence[float]], float]
) -> Agreement | None:
    scores = [
        closeness([*map(_vote, votes[pair])], [*map(_vote, gold[pair])])
        for pair in votes
        if votes[pair] and gold.get(pair)
    ]
    n = len(scores)
    if not n:
        return None
    mean = math.fsum(scores) / n
    spread = math.fsum((score - mean) ** 2 for score in scores)
    return Agreement(mean, math.sqrt(spread / (n - 1) / n) if n > 1 else None, n)


def _closeness(own: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """1 less the distance of the majorities, over all of both sides."""
    gaps = [
        abs(x - y) for votes in own for others in other for x in _majority(votes) for y in _majority(others)
    ]
    return 1 - math.fsum(gaps) / len(gaps)


def _majority(votes: Sequence[float]) -> list[float]:
    """The most frequent verdicts; of probabilities the median."""
    if {*votes} <= {1.0, 1.5, 2.0}:
        counts = Counter(votes)
        most = max(counts.values())
        return [vote for vote, count in counts.items() if count == most]
    ordered = sorted(votes)
    middle = len(ordered) // 2
    return [(ordered[middle] + ordered[~middle]) / 2]


def _vote(preference: float) -> float:
    return 1.5 if preference == 0 else float(preference)
