"""How far people who label the same pairs agree, beyond what chance would give. Labels are categories."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations


def pairwise_agreement(units: Sequence[Sequence[Hashable]]) -> float | None:
    """The share of equal labels among all pairs of labels of one unit, every unit with the same weight.

    None where no unit has two labels.
    """
    shares = [_equal_share(labels) for labels in units if len(labels) > 1]
    return sum(shares) / len(shares) if shares else None


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """(observed - expected agreement) / (1 - expected) of two people on the same units (Cohen 1960).

    Expected is what their own shares of each label would give by chance. None where both always give the same
    single label, or without units: agreement then says nothing.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} labels cannot be paired")
    n = len(first)
    if not n:
        return None
    observed = sum(a == b for a, b in zip(first, second, strict=True)) / n
    shares_1, shares_2 = Counter(first), Counter(second)
    expected = sum(count * shares_2[label] for label, count in shares_1.items()) / n**2
    return None if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(units: Sequence[Sequence[Hashable]]) -> float | None:
    """1 - observed / expected disagreement for any number of people and missing labels, nominal
    (Krippendorff 2011, "Computing Krippendorff's alpha-reliability", section C).

    Units with fewer than two labels do not count. None where no unit has two, or all labels are the same.
    """
    paired = [labels for labels in units if len(labels) > 1]
    totals = Counter(label for labels in paired for label in labels)
    n = sum(totals.values())
    expected = n * n - sum(count * count for count in totals.values())
    if not expected:
        return None
    observed = sum(len(labels) * (1 - _equal_share(labels)) for labels in paired)
    return 1 - (n - 1) * observed / expected


def of_two(labels: Mapping[str, Mapping[str, Hashable]], first: str, second: str) -> tuple[int, float | None]:
    """On how many units both people gave a label, and their kappa there. `labels`: unit, person, label."""
    both = [given for given in labels.values() if first in given and second in given]
    return len(both), cohen_kappa([given[first] for given in both], [given[second] for given in both])


def _equal_share(labels: Sequence[Hashable]) -> float:
    equal = [a == b for a, b in combinations(labels, 2)]
    return sum(equal) / len(equal)
