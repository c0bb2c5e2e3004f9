"""A headless Chromium, and somebody who labels in it with the keyboard."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WAIT_MS = 60_000  # a busy machine is slow; nothing here is timed
CHANGED = """was => {
    const now = document.getElementById("pair").dataset.pair;
    return (now && now !== was) || !document.getElementById("done").hidden;
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A Playwright browser; skips the test where there is none on this machine."""
    api = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the path")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Person:
    """Labels in a tab. `said` has the output that was preferred, by pair: 1, 2, tie or skip."""

    tab: Any
    folder: Path
    said: dict[str, str] = field(default_factory=dict)
    heard: list[str] = field(default_factory=list)  # what the browser complained of
    asked: set[str] = field(default_factory=set)  # addresses that the page loaded something from

    def __post_init__(self) -> None:
        self.tab.set_default_timeout(WAIT_MS)
        self.tab.on("console", lambda message: self.heard.append(message.text))
        self.tab.on("pageerror", lambda error: self.heard.append(str(error)))
        self.tab.on("dialog", lambda dialog: (self.heard.append(dialog.message), dialog.dismiss()))
        self.tab.on("request", lambda request: self.asked.add(request.url))

    def begins(self, address: str, name: str) -> Person:
        self.tab.goto(address)
        self.tab.fill("#labeller", name)
        self.tab.keyboard.press("Enter")
        self.ready()
        return self

    def ready(self) -> None:
        self.tab.wait_for_function(CHANGED, arg="")

    @property
    def pair(self) -> str:
        return str(self.tab.get_attribute("#pair", "data-pair"))

    @property
    def is_done(self) -> bool:
        return bool(self.tab.is_visible("#done"))

    def shown(self, side: str) -> str:
        return str(self.tab.text_content(f"#{side} .text"))

    def press(self, key: str) -> None:
        """Chooses, and waits for what comes next."""
        was = self.pair
        self.said[was] = self._meant(key)
        self.tab.keyboard.press(key)
        self.tab.wait_for_function(CHANGED, arg=was)

    def _meant(self, key: str) -> str:
        """Which output stands where `key` points, found by its text."""
        if key in ("3", "t", "s"):
            return "skip" if key == "s" else "tie"
        side = "left" if key in ("1", "ArrowLeft") else "right"
        rows = map(json.loads, (self.folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines())
        row = next(row for row in rows if row["id"] == self.pair)
        return "1" if self.shown(side) == (row["output_1"] or "(an empty answer)") else "2"
