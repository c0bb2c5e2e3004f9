"""A folder to label, and its page's server in a process of its own."""

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx


def folder_of(path: Path, pairs: Sequence[dict[str, str]]) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    (path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def pairs(count: int) -> list[dict[str, str]]:
    return [
        {
            "id": f"p{i}",
            "instruction": f"Do {i}.",
            "input": "",
            "output_1": f"first {i}",
            "output_2": f"second {i}",
        }
        for i in range(count)
    ]


class Served:
    """The server of a folder. `port` 0 takes a free one."""

    def __init__(self, folder: Path, *arguments: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "alpacafarm.label", str(folder), "--port", str(port), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        self.told = []
        for line in self.process.stdout:
            self.told.append(line)
            if found := re.search(r"http://\S+", line):
                self.address = found.group()
                break
        else:
            raise AssertionError(f"no page: {self.told}")
        self.url = httpx.URL(self.address).copy_with(query=None)
        self.port = int(self.url.port or 0)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Its exit code; what it printed is in `told`."""
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=60)
        self.told.append(rest)
        return self.process.returncode


@contextmanager
def served(folder: Path, *arguments: str, port: int = 0) -> Iterator[Served]:
    server = Served(folder, *arguments, port=port)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
