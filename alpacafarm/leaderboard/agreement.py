"""How far a judge agrees with another one, or with people, on the same pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from alpacafarm.errors import SpecError
from alpacafarm.leaderboard.entries import Entry
from alpacafarm.stats.annotators import (
    JudgedTexts,
    agreement,
    bias,
    prefers_first,
    prefers_lists,
    prefers_longer,
    variance,
)

Pair = tuple[str, str | None, str | None]  # the row's identity, and the two answers


@dataclass(frozen=True)
class Analysis:
    """In percent. `agreement` and `bias` are against `gold`, on the `n_pairs` that both judged.

    `variance` needs several verdicts of the judge on each pair, the preferences for length and lists the
    texts; None where they are not there.
    """

    judge: str
    gold: str
    n_pairs: int
    agreement: float | None
    agreement_error: float | None
    bias: float | None
    variance: float | None
    prefers_longer: float | None
    prefers_lists: float | None
    prefers_first: float | None


def analyses(found: Sequence[Entry], gold: Sequence[Entry], gold_name: str) -> list[Analysis]:
    """Of each judge. SpecError where none of them judged a pair of the gold file.

    Verdicts meet by the row's identity and the two answers, so only the same pair counts as the same.
    """
    gold_votes = votes(gold)
    judges = dict.fromkeys(entry.judge for entry in found)
    told = [
        _analysis(judge, [e for e in found if e.judge == judge], gold_votes, gold_name) for judge in judges
    ]
    if not any(one.n_pairs for one in told):
        raise SpecError(
            f"{gold_name}: judges none of the pairs of the other files; a pair is the same where both "
            "answers and the row's id (its place, where there is none) are"
        )
    return told


def votes(found: Sequence[Entry]) -> dict[Pair, list[float]]:
    told: dict[Pair, list[float]] = {}
    for entry in found:
        for identity, rows in entry.rows.items():
            for row in rows:
                if row.preference is not None:
                    # Files without texts still tell who answered.
                    pair = (identity, row.output_1 or row.baseline, row.output_2 or entry.name)
                    told.setdefault(pair, []).append(row.preference)
    return told


def _analysis(
    judge: str, found: Sequence[Entry], gold: Mapping[Pair, Sequence[float]], gold_name: str
) -> Analysis:
    own = votes(found)
    texts = {
        (identity, row.output_1, row.output_2): JudgedTexts(row.output_1, row.output_2, row.preference)
        for entry in found
        for identity, rows in entry.rows.items()
        for row in rows[:1]
        if row.preference is not None and row.output_1 is not None and row.output_2 is not None
    }
    agreed = agreement(own, gold)
    return Analysis(
        judge=judge,
        gold=gold_name,
        n_pairs=agreed.n_pairs if agreed else 0,
        agreement=_percent(agreed.score if agreed else None),
        agreement_error=_percent(agreed.standard_error if agreed else None),
        bias=_percent(bias(own, gold)),
        variance=_percent(variance(own)),
        prefers_longer=_percent(prefers_longer(list(texts.values()))),
        prefers_lists=_percent(prefers_lists(list(texts.values()))),
        prefers_first=_percent(prefers_first(own)),
    )


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
