"""The numbers of a leaderboard. A table has one judge and one set of references, sorted by win rate."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from alpacafarm.data.annotations import Annotation, failures
from alpacafarm.errors import SpecError
from alpacafarm.leaderboard.entries import Entry
from alpacafarm.leaderboard.published import Published
from alpacafarm.stats.paired import DRAWS, Difference, Duel, difference, head_to_head
from alpacafarm.stats.seeds import stable_seed
from alpacafarm.stats.winrate import WinRate, win_rate_by_instruction

if TYPE_CHECKING:
    from alpacafarm.stats.length_control import LengthControlled, Rated

PLACE = re.compile(r"[0-9]{1,9}")  # an id that is the row's number in its evaluation set


@dataclass(frozen=True)
class Standing:
    """`rate` is None where no row has a verdict, `controlled` where it was not asked for."""

    entry: Entry
    rate: WinRate | None
    failures: Mapping[str, int]
    avg_length: float | None  # characters
    controlled: LengthControlled | None

    @property
    def win_rate(self) -> float:
        return self.rate.win_rate if self.rate else float("-inf")


def tables(
    found: Sequence[Entry], *, control: bool = True, given: Published | None = None
) -> list[list[Standing]]:
    """One for each judge and set of references, the best model of each first."""
    groups: dict[tuple[str, str], list[Entry]] = {}
    for entry in found:
        groups.setdefault((entry.judge, entry.reference), []).append(entry)
    return [_table(groups[key], control, given) for key in sorted(groups)]


def _table(group: Sequence[Entry], control: bool, given: Published | None) -> list[Standing]:
    controlled = _controlled(group, given) if control else [None] * len(group)
    standings = [
        Standing(
            entry,
            _rate(entry),
            failures(entry.all_rows()),
            _mean([row.length_2 for row in entry.all_rows()]),
            one,
        )
        for entry, one in zip(group, controlled, strict=True)
    ]
    return sorted(standings, key=lambda standing: -standing.win_rate)


def _rate(entry: Entry) -> WinRate | None:
    groups = [[row.preference for row in rows] for rows in entry.rows.values()]
    if all(preference is None for group in groups for preference in group):
        return None
    return win_rate_by_instruction(groups)


def shares(entry: Entry) -> dict[str, float]:
    """By row, what goes to the model; rows without a verdict are not in it."""
    found = {}
    for identity, rows in entry.rows.items():
        won = [row.preference - 1 for row in rows if row.preference is not None]
        if won:
            found[identity] = statistics.fmean(won)
    return found


def _controlled(group: Sequence[Entry], given: Published | None) -> list[LengthControlled]:
    from alpacafarm.stats.length_control import LengthControlled, length_controlled

    identities = list(dict.fromkeys(identity for entry in group for identity in entry.rows))
    difficulty = None
    if given is not None:
        places = {i: _place(entry.rows[i][0]) for entry in group for i in entry.rows}
        difficulty = [given.difficulty_of(places[identity]) for identity in identities]
    fitted = length_controlled([_rated(entry, identities) for entry in group], difficulty)
    if given is None:
        return fitted
    known = [given.win_rate(entry.name, entry.baseline) for entry in group]
    return [
        one if rate is None else LengthControlled(rate, None, difficulty="published")
        for one, rate in zip(fitted, known, strict=True)
    ]


def _place(row: Annotation) -> int:
    return int(row.row) if row.row is not None and PLACE.fullmatch(row.row) else row.place


def _rated(entry: Entry, identities: Sequence[str]) -> Rated:
    from alpacafarm.stats.length_control import Rated

    won, nan = shares(entry), float("nan")
    longer = {
        identity: _mean([_gap(row) for row in rows]) for identity, rows in entry.rows.items()
    }  # None where a file tells no lengths
    gaps = [longer.get(identity) for identity in identities]
    return Rated([won.get(identity, nan) for identity in identities], [nan if g is None else g for g in gaps])


def _gap(row: Annotation) -> int | None:
    return None if row.length_1 is None or row.length_2 is None else row.length_1 - row.length_2


def _mean(values: Sequence[int | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def differences(table: Sequence[Standing]) -> dict[tuple[str, str], Difference]:
    """Of each two models of a table that share rows with verdicts, by (first, second)."""
    rates = {standing.entry.name: shares(standing.entry) for standing in table}
    found = {}
    for a, mine in rates.items():
        for b, other in rates.items():
            seed = stable_seed("difference", a, b)
            if a < b and (one := difference(mine, other, seed=seed, draws=DRAWS)):
                found[a, b], found[b, a] = one, one.mirrored
    return found


def duels(found: Sequence[Entry], judge: str) -> tuple[list[str], dict[tuple[str, str], Duel]]:
    """Who was preferred to whom by one judge, baselines among them. Every row counts once."""
    return head_to_head(
        [
            (entry.reference, entry.name, share)
            for entry in found
            if entry.judge == judge
            for share in shares(entry).values()
        ]
    )


def as_rows(found: Sequence[Sequence[Standing]]) -> list[dict[str, Any]]:
    """What `--json` prints."""
    return [_row(standing) for table in found for standing in table]


def _row(standing: Standing) -> dict[str, Any]:
    rate, controlled = standing.rate, standing.controlled
    n_failures = sum(standing.failures.values())
    return {
        "name": standing.entry.name,
        "win_rate": rate.win_rate if rate else None,
        "standard_error": rate.standard_error if rate else None,
        "n_wins": rate.n_wins if rate else 0,
        "n_wins_base": rate.n_wins_base if rate else 0,
        "n_draws": rate.n_draws if rate else 0,
        "n_total": rate.n_total if rate else 0,
        "discrete_win_rate": rate.discrete_win_rate if rate else None,
        "length_controlled_win_rate": controlled.win_rate if controlled else None,
        "length_controlled_standard_error": controlled.standard_error if controlled else None,
        "length_controlled_reason": controlled.reason if controlled else "not asked for",
        "length_controlled_difficulty": controlled.difficulty if controlled else None,
        "avg_length": standing.avg_length,
        "judge": standing.entry.judge,
        "reference": standing.entry.reference,
        "n_failures": n_failures,
        "failures": dict(standing.failures),
        "source": standing.entry.source,
    }


def check_names(found: Sequence[Entry]) -> None:
    """SpecError where two entries of one table have one name, which no table can tell apart."""
    seen = set()
    for entry in found:
        key = entry.judge, entry.reference, entry.name
        if key in seen:
            raise SpecError(f"{entry.source}: a second model is called {entry.name}; give each its own name")
        seen.add(key)
