"""What a stage or a program asks through: one client for each endpoint, one thread, one store, many askers.

with ApiClient(api, Path("store"), budget=budget, run="mine", stage="1", stage_name="mine") as client:
    for position, outcome in client.asker("gpt-4o").ask(requests): ...
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from alpacafarm.api.asker import ApiAsker
from alpacafarm.api.endpoints import Pool
from alpacafarm.api.engine import Engine
from alpacafarm.api.prices import Prices
from alpacafarm.api.store import AnswerStore, Purpose, Spent
from alpacafarm.api.writer import Writer
from alpacafarm.spec.api import ApiSpec, BudgetSpec

T = TypeVar("T")


class ApiClient:
    """Nothing is opened before something is asked. Close it, or use it in a `with` block.

    Args:
        folder: the store; answers and ledger are in `answers.sqlite` there.
        stage: what the ledger has the calls under, a stage's key.
        shared: the stages that share the budget; `stage` alone where empty.
    """

    def __init__(
        self,
        api: ApiSpec,
        folder: Path,
        *,
        budget: BudgetSpec,
        run: str,
        stage: str,
        stage_name: str,
        shared: Sequence[str] = (),
    ) -> None:
        self.api, self.folder = api, folder
        self.purpose = Purpose(run, stage, stage_name, "", tuple(shared) or (stage,), budget)
        self.askers: dict[str, ApiAsker] = {}
        self._open: tuple[Engine, asyncio.AbstractEventLoop] | None = None
        self._opening = threading.RLock()  # threads may share a client

    def __enter__(self) -> ApiClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def asker(self, annotator: str) -> ApiAsker:
        """Asks in the name of `annotator`."""
        if annotator not in self.askers:
            self.askers[annotator] = ApiAsker(self._opened, replace(self.purpose, annotator=annotator))
        return self.askers[annotator]

    def spent(self) -> Spent | None:
        """What the ledger has for the stage, of all processes and times; None: nothing was asked here."""
        return None if self._open is None else self._of_store(lambda store: store.spent([self.purpose.stage]))

    def _opened(self) -> tuple[Engine, asyncio.AbstractEventLoop]:
        with self._opening:
            if self._open is None:
                prices, loop = Prices(self.api), asyncio.new_event_loop()
                self._thread = threading.Thread(target=loop.run_forever, name="alpacafarm asker", daemon=True)
                self._thread.start()
                self._open = Engine(Pool(self.api.endpoints), Writer(self.folder, loop), prices), loop
                self.spent()  # where the store cannot be opened, this says so
            return self._open

    def _of_store(self, work: Callable[[AnswerStore], T]) -> T:
        engine, loop = self._opened()
        return asyncio.run_coroutine_threadsafe(engine.writer.do(work), loop).result()

    def close(self) -> None:
        """Waits for what is in flight, as `Asking.stop` says."""
        if self._open is None:
            return
        engine, loop = self._open
        for asker in self.askers.values():
            asker.stop()
        asyncio.run_coroutine_threadsafe(engine.pool.close(), loop).result()
        engine.writer.close()
        loop.call_soon_threadsafe(loop.stop)
        self._thread.join()
        loop.close()
        self._open = None
