"""The thread that owns the database: what many requests want of it at a time is one transaction."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from alpacafarm.api.store import NAME, AnswerStore
from alpacafarm.errors import JudgeError

T = TypeVar("T")
MOST = 256  # jobs of one transaction, about
Work = Callable[[AnswerStore], Any]
Job = tuple[Work, "asyncio.Future[Any] | None"]


class Writer:
    """Runs jobs in the order in which they come; a job's future is set when its transaction is committed."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.folder, self.loop = folder, loop
        self.store: AnswerStore | None = None  # the thread's
        self.gathered: list[Job] = []  # in this round of the loop: threads are woken once for all of them
        self.jobs: queue.SimpleQueue[list[Job] | None] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="alpacafarm answers", daemon=True)
        self.thread.start()

    async def do(self, work: Callable[[AnswerStore], T]) -> T:
        done: asyncio.Future[T] = self.loop.create_future()
        self._gather((work, done))
        return await done

    def post(self, work: Work) -> None:
        """Does it some time, in order, and tells nobody."""
        self._gather((work, None))

    def _gather(self, job: Job) -> None:
        if not self.gathered:
            self.loop.call_soon(self._hand_over)
        self.gathered.append(job)

    def _hand_over(self) -> None:
        self.jobs.put(self.gathered)
        self.gathered = []

    def close(self) -> None:
        """Returns when everything is committed and the database closed. Not for the loop's thread."""
        self.loop.call_soon_threadsafe(self.jobs.put, None)  # after what is gathered
        self.thread.join()

    def _run(self) -> None:
        try:
            while jobs := self._next():
                self._commit(jobs)
        finally:
            self._shut()

    def _next(self) -> list[Job]:
        """What has come by now, at least one job; nothing when it is time to close."""
        jobs: list[Job] = []
        while len(jobs) < MOST:
            try:
                more = self.jobs.get(block=not jobs)
            except queue.Empty:
                break
            if more is None:
                if jobs:
                    self.jobs.put(None)
                break
            jobs += more
        return jobs

    def _commit(self, jobs: list[Job]) -> None:
        results: list[Any] = []
        error: Exception | None = None
        try:
            store = self.store = self.store or AnswerStore(self.folder)
            with store.transaction():
                results = [work(store) for work, _ in jobs]
        except Exception as failed:  # nothing of it happened, and each of the jobs is told
            error, results = self._worded(failed), [None] * len(jobs)
            self._shut()  # gives up what is in flight, whose end may be lost by this
        futures = [done for _, done in jobs]
        self.loop.call_soon_threadsafe(settle, futures, results, error)

    def _shut(self) -> None:
        """The next transaction opens the store anew."""
        store, self.store = self.store, None
        if store is not None:
            store.close()

    def _worded(self, error: Exception) -> Exception:
        """What the file system refuses is the user's business."""
        if not isinstance(error, sqlite3.DatabaseError | OSError):
            return error
        return JudgeError(
            f"{self.folder / NAME}: {error}; see that it can be written and that there is space, or set "
            "store to another folder; what was answered is kept"
        )


def settle(futures: list[asyncio.Future[Any] | None], results: list[Any], error: Exception | None) -> None:
    for future, result in zip(futures, results, strict=True):
        if future is None or future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)
