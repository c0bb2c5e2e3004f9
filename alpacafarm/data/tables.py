"""Tables that Python code hands over: lists of dictionaries, DataFrames, `datasets`. Rows in, rows out.

No library is imported for it: who passes a DataFrame has pandas already.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


def rows_of(table: Any) -> list[Row]:
    """The rows of a table, in order, as dictionaries of their own. TypeError for what is none."""
    if type(table).__name__ == "DataFrame":
        table = table.to_dict(orient="records")
    if isinstance(table, str | bytes | Mapping) or not isinstance(table, Iterable):
        raise TypeError(
            f"a {type(table).__name__} is no table; pass a list of dictionaries, a DataFrame or a "
            "datasets.Dataset"
        )
    rows = list(table)
    for i, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TypeError(f"row {i}: a {type(row).__name__} is no row; a dictionary is required")
    return [dict(row) for row in rows]


def is_missing(value: Any) -> bool:
    """None, and what pandas puts where nothing is: NaN or NA."""
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ == "NAType"


def text(row: Row, column: str, place: int, default: str | None = None) -> str:
    """A cell that must be text. A missing value is `default` where there is one."""
    value = row.get(column)
    if default is not None and is_missing(value):
        return default
    if isinstance(value, str):
        return value
    have = ", ".join(map(str, row)) or "nothing"
    raise ValueError(f"row {place}: {column}={value!r} must be text; the row has {have}")


@dataclass(frozen=True)
class Joined:
    """Rows of two tables side by side, and those that found no partner (with the number of their table)."""

    rows: list[Row]
    alone: list[tuple[int, Row]]


def joined(table_1: Any, table_2: Any, *, keys: Sequence[str], in_order: bool) -> Joined:
    """Rows of two models' outputs side by side, in the order of the first.

    Joined by place (`in_order`), by `id` where every row of both has one, else by the columns `keys`.
    ValueError where that is ambiguous or contradicts itself: a duplicate, unequal lengths, rows of one place
    or id with different keys. Columns of both but the keys get `_1` and `_2` behind their name, unless they
    are equal in all rows and not output or generator.
    """
    rows_1, rows_2 = rows_of(table_1), rows_of(table_2)
    if in_order:
        if len(rows_1) != len(rows_2):
            raise ValueError(
                f"{len(rows_1)} and {len(rows_2)} rows are not in the same order; "
                "pass the same instructions in both, or is_ordered=False"
            )
        matches = [(one, two) for one, two in zip(rows_1, rows_2, strict=True)]
        alone: list[tuple[int, Row]] = []
    else:
        by = ["id"] if all(not is_missing(row.get("id")) for row in (*rows_1, *rows_2)) else list(keys)
        first, second = _by_key(rows_1, by, 1), _by_key(rows_2, by, 2)
        matches = [(row, second[key]) for key, row in first.items() if key in second]
        alone = [(1, row) for key, row in first.items() if key not in second]
        alone += [(2, row) for key, row in second.items() if key not in first]
    for place, (one, two) in enumerate(matches):
        if key_of(one, keys) != key_of(two, keys):
            raise ValueError(
                f"pair {place}: the two rows differ in {' or '.join(keys)}, "
                f"{key_of(one, keys)!r} and {key_of(two, keys)!r}; compare outputs of the same instruction"
            )
    return Joined(_side_by_side(matches, keys), alone)


def key_of(row: Row, columns: Sequence[str]) -> tuple[Any, ...]:
    """A row's values of these columns; a missing one is an empty text. ValueError for a list or its like."""
    found = tuple("" if is_missing(row.get(c)) else row[c] for c in columns)
    for column, value in zip(columns, found, strict=True):
        if not isinstance(value, Hashable):
            raise ValueError(f"{column}={value!r} must be text or a number: rows are told apart by it")
    return found


def _by_key(rows: Sequence[Row], columns: Sequence[str], number: int) -> dict[tuple[Any, ...], Row]:
    found: dict[tuple[Any, ...], Row] = {}
    for place, row in enumerate(rows):
        key = key_of(row, columns)
        if key in found:
            raise ValueError(
                f"outputs_{number}: row {place} has the {' and '.join(columns)} of an earlier row, {key!r}; "
                "give every row an id of its own, or pass is_ordered=True"
            )
        found[key] = row
    return found


def _equal(one: Any, two: Any) -> bool:
    """Also where lists are arrays, as pandas reads them."""
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        return one.keys() == two.keys() and all(_equal(one[key], two[key]) for key in one)
    one, two = (value.tolist() if hasattr(value, "tolist") else value for value in (one, two))
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_equal, one, two))
    return bool(one == two)


def _side_by_side(matches: Sequence[tuple[Row, Row]], keys: Sequence[str]) -> list[Row]:
    shared = {c for one, two in matches for c in one if c in two and c not in keys}
    split = {
        c
        for c in shared
        if c in ("output", "generator") or not all(_equal(one.get(c), two.get(c)) for one, two in matches)
    }
    return [
        {f"{c}_1" if c in split else c: value for c, value in one.items()}
        | {f"{c}_2" if c in split else c: value for c, value in two.items() if c in split or c not in one}
        for one, two in matches
    ]
