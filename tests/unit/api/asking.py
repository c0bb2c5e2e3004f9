"""A client for tests, and what the database has."""

import sqlite3
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alpacafarm.api.client import ApiClient
from alpacafarm.api.store import NAME
from alpacafarm.request import Answer, Failure, Request
from alpacafarm.spec.api import ApiSpec, BudgetSpec, EndpointSpec

FREE_OF_LIMITS: dict[str, None] = {"max_usd": None, "max_calls": None}


def question(i: int, **parameters: Any) -> Request:
    """Different for each `i`."""
    return Request(
        "m", [{"role": "user", "content": f"question {i}"}], parameters={"max_tokens": 20, **parameters}
    )


def api(*urls: str, prices: Path | None = None, **keys: Any) -> ApiSpec:
    """Endpoints e0, e1, ... that serve any model; free unless there are prices."""
    told = {"free": prices is None, "timeout_s": 60.0, **keys}
    endpoints = {f"e{i}": EndpointSpec(base_url=url, **told) for i, url in enumerate(urls)}
    return ApiSpec(endpoints=endpoints, prices=None if prices is None else str(prices))


def client(spec: ApiSpec, store: Path, *, stage: str = "stage", run: str = "run", **budget: Any) -> ApiClient:
    caps = BudgetSpec.model_validate(FREE_OF_LIMITS | budget)
    return ApiClient(spec, store, budget=caps, run=run, stage=stage, stage_name="annotate")


def asked(
    spec: ApiSpec, store: Path, requests: Iterable[Request], **told: Any
) -> dict[int, Answer | Failure]:
    """What came of each request, by its position; none comes twice."""
    with client(spec, store, **told) as c:
        outcomes = list(c.asker("me").ask(requests))
    found = dict(outcomes)
    assert len(found) == len(outcomes)
    return found


def rows(store: Path, query: str) -> list[tuple[Any, ...]]:
    db = sqlite3.connect(store / NAME)
    try:
        return db.execute(query).fetchall()
    finally:
        db.close()


def states(store: Path) -> Counter[str]:
    """Attempts that were sent, by their state."""
    return Counter(dict(rows(store, "SELECT state, count(*) FROM attempts WHERE calls = 1 GROUP BY state")))
