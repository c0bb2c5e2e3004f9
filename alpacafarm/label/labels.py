"""`labels.sqlite`: what people said of which pair, and who is about to say something.

Every call is a transaction of its own on a connection of its own, so any number of threads, servers and runs
may use one file. A label is on the disk before the call returns. The journal is SQLite's rollback journal,
not WAL, whose shared memory does not work between the machines that share a file system.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from alpacafarm.errors import ArtifactError

Choice = Literal["1", "2", "tie", "skip"]  # 1 and 2 are the pair's outputs, whichever side they stood on
PREFERENCE: dict[Choice, float] = {"1": 1.0, "tie": 1.5, "2": 2.0}

LEASE_S = 600.0  # how long a pair that somebody looks at is kept from others, unless the page renews it
BUSY_S = 30.0  # how long to wait for another process's transaction

SCHEMA = """
CREATE TABLE IF NOT EXISTS task (name TEXT PRIMARY KEY, value);
CREATE TABLE IF NOT EXISTS pairs (pair TEXT PRIMARY KEY, place INTEGER NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS labels (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    pair TEXT NOT NULL REFERENCES pairs,
    labeller TEXT NOT NULL,
    choice TEXT NOT NULL CHECK (choice IN ('1', '2', 'tie', 'skip')),
    swapped INTEGER NOT NULL,
    comment TEXT NOT NULL,
    seconds REAL,
    at TEXT NOT NULL,
    replaced_by TEXT
);
CREATE UNIQUE INDEX IF NOT EXISTS one_each ON labels (pair, labeller) WHERE replaced_by IS NULL;
CREATE TABLE IF NOT EXISTS leases (
    pair TEXT NOT NULL, labeller TEXT NOT NULL, tab TEXT NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (pair, labeller)
);
"""
LIVE = "replaced_by IS NULL"  # a label that its labeller has not changed since
# Open for `:me`: not labelled by them, and with room for another label beside what others gave or look at.
# With `:again` those that they look at in another tab of theirs, else those that they do not.
NEXT = f"""
SELECT p.pair FROM pairs p
LEFT JOIN (SELECT pair, count(*) n, max(labeller = :me) mine FROM labels WHERE {LIVE} GROUP BY pair) l
    ON l.pair = p.pair
LEFT JOIN (SELECT pair, sum(labeller != :me) n, max(labeller = :me) mine FROM leases GROUP BY pair) s
    ON s.pair = p.pair
WHERE NOT ifnull(l.mine, 0) AND ifnull(s.mine, 0) = :again AND ifnull(l.n, 0) + ifnull(s.n, 0) < :per_pair
ORDER BY p.place LIMIT :count
"""


@dataclass(frozen=True)
class Label:
    """What one person said of one pair. `id` is the page's: the same label sent twice is one label.

    `swapped`: output 2 stood on the left. `seconds` is how long the person looked; None where unknown.
    """

    id: str
    pair: str
    labeller: str
    choice: Choice
    swapped: bool
    comment: str = ""
    seconds: float | None = None
    at: str = ""  # ISO 8601, UTC
    seq: int = 0  # counts all labels that were ever given

    @property
    def preference(self) -> float | None:
        """1, 2 or 1.5; None for a skip."""
        return PREFERENCE.get(self.choice)


COLUMNS = ", ".join(part.name for part in fields(Label))


@dataclass(frozen=True)
class Task:
    """`key` is that of the pairs. `goal`: pairs that shall be labelled; None for all."""

    key: str
    labels_per_pair: int
    goal: int | None


@dataclass(frozen=True)
class Standing:
    """How far the labelling is. A skip takes one of a pair's places, but is no verdict.

    `judged` pairs have all their labels and a verdict among them; `skipped` pairs have all and none; `begun`
    pairs have some.
    """

    pairs: int
    judged: int
    skipped: int
    begun: int
    labels: int
    goal: int

    @property
    def missing(self) -> int:
        """Pairs that must still get labels; 0 when the run can go on."""
        return max(0, min(self.goal - self.judged, self.pairs - self.judged - self.skipped))


class Taken(Exception):  # noqa: N818  # not a fault
    """The labeller has labelled the pair already, by another label, which stays."""


class Labels:
    """The file at `path`, made if there is none. ArtifactError where it belongs to other pairs."""

    def __init__(self, path: Path, key: str, pairs: Sequence[str]) -> None:
        self.path = path
        with self._transaction() as db:
            # One by one: executescript would commit the transaction first.
            for statement in SCHEMA.split(";\n"):
                db.execute(statement)
            found = db.execute("SELECT value FROM task WHERE name = 'key'").fetchone()
            if found is None:
                db.execute(
                    "INSERT INTO task VALUES ('key', ?), ('labels_per_pair', 1), ('goal', NULL)", [key]
                )
                db.executemany("INSERT INTO pairs VALUES (?, ?)", [(p, i) for i, p in enumerate(pairs)])
            elif found[0] != key:
                raise ArtifactError(
                    f"{path} has labels of other pairs than {path.parent / 'pairs.jsonl'}: that file was "
                    "changed; restore it, or put the changed one into a folder of its own"
                )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Alone with the file from the first statement on; all or nothing."""
        try:
            db = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None)
        except sqlite3.OperationalError as error:
            raise ArtifactError(
                f"{self.path}: cannot be opened ({error}); can its folder be written?"
            ) from None
        try:
            db.execute("PRAGMA synchronous = EXTRA")  # also after a power cut
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        except sqlite3.DatabaseError as error:
            raise ArtifactError(f"{self.path}: {error}; nothing was written") from error
        finally:
            db.close()  # which rolls back what was not committed

    def ask_for(self, *, labels_per_pair: int, goal: int | None) -> Standing:
        """Changes what is asked for, and tells how far that is, whatever others ask for afterwards. Labels
        stay."""
        with self._transaction() as db:
            db.execute("UPDATE task SET value = ? WHERE name = 'labels_per_pair'", [labels_per_pair])
            db.execute("UPDATE task SET value = ? WHERE name = 'goal'", [goal])
            return _standing(db)

    def task(self) -> Task:
        with self._transaction() as db:
            return _task(db)

    def standing(self) -> Standing:
        with self._transaction() as db:
            return _standing(db)

    def lease(self, labeller: str, tab: str, *, keep: Sequence[str], count: int, now: float) -> list[str]:
        """Pairs for a tab to show: those that it keeps, then further ones up to `count`, in order.

        Fewer, or none, where nothing is open for this person or the goal is reached. What the person has in
        another tab comes last, when nothing else is left: that tab may have died.
        """
        with self._transaction() as db:
            # One that is far longer than any is from before the clock was set back.
            db.execute("DELETE FROM leases WHERE until <= ? OR until > ?", [now, now + 2 * LEASE_S])
            rows = db.execute(
                "SELECT pair FROM leases JOIN pairs USING (pair) WHERE labeller = ? AND tab = ? "
                "ORDER BY place",
                [labeller, tab],
            )
            own = [pair for (pair,) in rows]
            mine = sorted(own, key=lambda pair: pair not in keep)  # also what an answer that got lost gave
            if _standing(db).missing:
                asked = {"me": labeller, "per_pair": _task(db).labels_per_pair, "count": count}
                for again in (0, 1):
                    found = (pair for (pair,) in db.execute(NEXT, asked | {"again": again}))
                    mine += [pair for pair in found if pair not in own]
            mine = mine[:count]
            until = now + LEASE_S
            db.executemany(
                "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?)", [(p, labeller, tab, until) for p in mine]
            )
            return mine

    def release(self, labeller: str, tab: str) -> None:
        """The tab was closed."""
        with self._transaction() as db:
            db.execute("DELETE FROM leases WHERE labeller = ? AND tab = ?", [labeller, tab])

    def give(self, label: Label, *, replaces: str | None = None) -> None:
        """Keeps a label, whoever holds a lease: what a person said is never refused for being late.

        Sent again it changes nothing. One that `replaces` an earlier label of the person on the same pair
        leaves that one in the file. `Taken` where the person has another label on the pair. KeyError where
        there is no such pair.
        """
        with self._transaction() as db:
            if db.execute("SELECT 1 FROM labels WHERE id = ?", [label.id]).fetchone():
                return
            if not db.execute("SELECT 1 FROM pairs WHERE pair = ?", [label.pair]).fetchone():
                raise KeyError(label.pair)
            own = db.execute(
                f"SELECT id FROM labels WHERE pair = ? AND labeller = ? AND {LIVE}",
                [label.pair, label.labeller],
            ).fetchone()
            if own and own[0] != replaces:
                raise Taken(label.pair)
            if own:
                db.execute("UPDATE labels SET replaced_by = ? WHERE id = ?", [label.id, replaces])
            at = label.at or datetime.now(UTC).isoformat(timespec="milliseconds")
            db.execute(
                "INSERT INTO labels (id, pair, labeller, choice, swapped, comment, seconds, at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    label.id,
                    label.pair,
                    label.labeller,
                    label.choice,
                    label.swapped,
                    label.comment,
                    label.seconds,
                    at,
                ],
            )
            db.execute("DELETE FROM leases WHERE pair = ? AND labeller = ?", [label.pair, label.labeller])

    def before(self, labeller: str, seq: int | None) -> Label | None:
        """The person's last label, or the one before that with number `seq`."""
        with self._transaction() as db:
            row = db.execute(
                f"SELECT {COLUMNS} FROM labels WHERE labeller = ? AND {LIVE} AND (? IS NULL OR seq < ?) "
                "ORDER BY seq DESC LIMIT 1",
                [labeller, seq, seq],
            ).fetchone()
            return _label(row) if row else None

    def counts(self) -> dict[str, int]:
        """Labels by person, skips among them."""
        with self._transaction() as db:
            found = db.execute(
                f"SELECT labeller, count(*) FROM labels WHERE {LIVE} GROUP BY labeller ORDER BY 1"
            )
            return dict(found.fetchall())

    def given(self) -> list[Label]:
        """Every label that counts, in the order in which they were given."""
        with self._transaction() as db:
            return [
                _label(row) for row in db.execute(f"SELECT {COLUMNS} FROM labels WHERE {LIVE} ORDER BY seq")
            ]


def _label(row: Sequence[object]) -> Label:
    told = dict(zip((part.name for part in fields(Label)), row, strict=True))
    return Label(**told | {"swapped": bool(told["swapped"])})  # type: ignore[arg-type]


def _task(db: sqlite3.Connection) -> Task:
    told = dict(db.execute("SELECT name, value FROM task").fetchall())
    return Task(
        told["key"], int(told["labels_per_pair"]), None if told["goal"] is None else int(told["goal"])
    )


def _standing(db: sqlite3.Connection) -> Standing:
    task = _task(db)
    (pairs,) = db.execute("SELECT count(*) FROM pairs").fetchone()
    by_pair = f"SELECT count(*) n, sum(choice != 'skip') verdicts FROM labels WHERE {LIVE} GROUP BY pair"
    labels, judged, skipped, begun = db.execute(
        "SELECT ifnull(sum(n), 0), ifnull(sum(n >= :k AND verdicts > 0), 0), "
        f"ifnull(sum(n >= :k AND verdicts = 0), 0), ifnull(sum(n < :k), 0) FROM ({by_pair})",
        {"k": task.labels_per_pair},
    ).fetchone()
    goal = pairs if task.goal is None else min(task.goal, pairs)
    return Standing(pairs, judged, skipped, begun, labels, goal)
