"""The store of answers and the ledger of attempts: SQLite, shared by any number of processes.

What a method has done is in the database when its transaction is committed (`transaction`), whatever kills
the process then; the loss of the whole machine can take the last moments, never the consistency (WAL,
`synchronous` NORMAL). Like `artifacts.store` it takes a file system whose locks work.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from alpacafarm.spec.api import BudgetSpec

NAME = "answers.sqlite"
SCHEMA = Path(__file__).with_name("schema.sql")
BUSY_S = 120.0  # how long to wait for other processes' transactions
NANO = 10**9  # units of the database for a USD

Ended = Literal["answered", "failed", "unknown"]


@dataclass(frozen=True)
class Purpose:
    """What calls are made for. The budget is that of all stages in `shared`."""

    run: str
    stage: str  # key
    stage_name: str
    annotator: str
    shared: Sequence[str]
    budget: BudgetSpec


@dataclass(frozen=True)
class Known:
    """The request was answered before."""

    response: str


@dataclass(frozen=True)
class Sent:
    """May go out now: the ledger has it."""

    attempt: int


@dataclass(frozen=True)
class Busy:
    """Another living process asks the same."""


@dataclass(frozen=True)
class Spent:
    """Sums of the ledger, reservations included."""

    calls: int
    price: int

    @property
    def usd(self) -> float:
        return self.price / NANO


@dataclass(frozen=True)
class Over:
    """Could pass the budget, of which `spent` is gone."""

    spent: Spent
    is_final: bool  # nothing that counts was in flight at that moment, which may cost less than reserved


class AnswerStore:
    """One connection, of one asker. Use it from one thread; call methods inside a `transaction`."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.owners = folder / ".askers"
        self.owners.mkdir(exist_ok=True)
        self.owner, self._lock = self._enter()
        try:
            with FileLock(self.owners / "schema"):
                self.db = connect(folder / NAME)
            with self.transaction():
                self.bury()
        except BaseException:
            self._leave()
            raise

    def _enter(self) -> tuple[str, FileLock]:
        """A name of our own, and its lock, which the kernel frees when this process ends in any way."""
        while True:
            owner = uuid.uuid4().hex[:12]
            lock = FileLock(self.owners / owner, thread_local=False)
            try:
                lock.acquire(blocking=False)
            except Timeout:  # another one is looking whether we are dead already
                continue
            return owner, lock

    def _leave(self) -> None:
        with suppress(OSError):  # of a file system that takes no more changes
            self._lock.release()
            (self.owners / self.owner).unlink(missing_ok=True)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self.db.execute("COMMIT")
        finally:
            if self.db.in_transaction:  # SQLite ends it itself after some faults
                self.db.execute("ROLLBACK")

    def close(self) -> None:
        """Gives up what is still in flight: its fate is unknown."""
        try:
            with suppress(sqlite3.Error), self.transaction():  # where the disk is full the next one buries us
                self._drop(self.owner)
            self.db.close()
        finally:
            self._leave()

    # Answers

    def known(self, keys: Sequence[str]) -> dict[str, str]:
        """Responses of those that were answered."""
        marks = ",".join("?" * len(keys))
        return dict(self.db.execute(f"SELECT key, response FROM answers WHERE key IN ({marks})", keys))

    def start(
        self, key: str, purpose: Purpose, *, model: str, endpoint: str, price: int
    ) -> Known | Sent | Busy | Over:
        """Claims a request and enters an attempt of it, `price` reserved, unless it is known or too much."""
        row = self.db.execute("SELECT response FROM answers WHERE key = ?", (key,)).fetchone()
        if row:
            return Known(row[0])
        if not self._claim(key):
            return Busy()
        spent = self.spent(purpose.shared)
        if is_over(purpose.budget, Spent(spent.calls + 1, spent.price + price)):
            self.free(key)
            return Over(spent, is_final=not self._in_flight(purpose.shared))
        told = (key, purpose.run, purpose.stage, purpose.stage_name, purpose.annotator, model, endpoint)
        cursor = self.db.execute(
            "INSERT INTO attempts (key, run, stage, stage_name, annotator, model, endpoint, owner, state,"
            " calls, price, sent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'sent', 1, ?, ?)",
            (*told, self.owner, price, time.time()),
        )
        assert cursor.lastrowid is not None
        return Sent(cursor.lastrowid)

    def end(
        self,
        attempt: int,
        state: Ended,
        *,
        price: int,
        calls: int = 1,
        tokens: tuple[int, int] = (0, 0),
        message: str = "",
    ) -> None:
        """What became of an attempt."""
        self.db.execute(
            "UPDATE attempts SET state = ?, calls = ?, tokens_in = ?, tokens_out = ?, price = ?, message = ?,"
            " ended = ? WHERE id = ?",
            (state, calls, *tokens, price, message, time.time(), attempt),
        )

    def withdraw(self, key: str) -> None:
        """An attempt of ours that was entered and did not go out."""
        self.db.execute(
            "UPDATE attempts SET state = 'failed', calls = 0, price = 0, message = 'not sent', ended = ? "
            "WHERE key = ? AND owner = ? AND state = 'sent'",
            (time.time(), key, self.owner),
        )

    def keep(self, attempt: int, key: str, request: str, response: str, endpoint: str) -> None:
        self.db.execute(
            "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?)",
            (key, request, response, endpoint, attempt),
        )
        self.free(key)

    def free(self, key: str) -> None:
        """Lets others ask it."""
        self.db.execute("DELETE FROM claims WHERE key = ? AND owner = ?", (key, self.owner))

    def is_asked_elsewhere(self, key: str) -> bool:
        """Whether another living process is at it."""
        found = self.db.execute("SELECT owner FROM claims WHERE key = ?", (key,)).fetchone()
        return found is not None and found[0] != self.owner and not self._is_dead(found[0])

    def _claim(self, key: str) -> bool:
        found = self.db.execute("SELECT owner FROM claims WHERE key = ?", (key,)).fetchone()
        if found is None:
            self.db.execute("INSERT INTO claims VALUES (?, ?)", (key, self.owner))
            return True
        if found[0] == self.owner:
            return True
        if not self._is_dead(found[0]):
            return False
        self._drop(found[0])
        self.db.execute("INSERT INTO claims VALUES (?, ?)", (key, self.owner))
        return True

    def _in_flight(self, stages: Sequence[str]) -> bool:
        """Whether a living process has attempts of these stages under way, this one included."""
        marks = ",".join("?" * len(stages))
        owners = self.db.execute(
            f"SELECT DISTINCT owner FROM attempts WHERE state = 'sent' AND stage IN ({marks})", tuple(stages)
        ).fetchall()
        return any(owner == self.owner or not self._is_dead(owner) for (owner,) in owners)

    # The dead

    def bury(self) -> None:
        """Attempts of processes that ended without a word: their fate is unknown, their claims are free."""
        owners = self.db.execute(
            "SELECT DISTINCT owner FROM attempts WHERE state = 'sent' UNION SELECT DISTINCT owner FROM claims"
        ).fetchall()
        for (owner,) in owners:
            if owner != self.owner and self._is_dead(owner):
                self._drop(owner)

    def _is_dead(self, owner: str) -> bool:
        file = self.owners / owner
        if not file.exists():
            return True
        lock = FileLock(file)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            return False
        file.unlink(missing_ok=True)
        lock.release()
        return True

    def _drop(self, owner: str) -> None:
        self.db.execute(
            "UPDATE attempts SET state = 'unknown', ended = ?, message = 'its process ended' "
            "WHERE owner = ? AND state = 'sent'",
            (time.time(), owner),
        )
        self.db.execute("DELETE FROM claims WHERE owner = ?", (owner,))

    # Money

    def spent(self, stages: Sequence[str]) -> Spent:
        marks = ",".join("?" * len(stages))
        row = self.db.execute(
            f"SELECT coalesce(sum(calls), 0), coalesce(sum(price), 0) FROM spending WHERE stage IN ({marks})",
            tuple(stages),
        ).fetchone()
        return Spent(*row)


def connect(file: Path) -> sqlite3.Connection:
    """Autocommit: transactions are begun and ended by hand."""
    db = sqlite3.connect(file, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.executescript(SCHEMA.read_text(encoding="utf-8"))
    return db


def is_over(budget: BudgetSpec, spent: Spent) -> bool:
    calls, usd = budget.max_calls, budget.max_usd
    return (calls is not None and spent.calls > calls) or (
        usd is not None and spent.price > round(usd * NANO)
    )
