"""Runs a function on several gloo ranks, one process each: `run_ranks(2, "package.module:function")`."""

import importlib
import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alpacafarm.engine.dist import connect, disconnect
from launchers.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


def run_ranks(n: int, target: str, *args: Any, timeout_s: float = 120) -> list[Any]:
    """`function(dist, *args)` on n ranks; the results in rank order. Arguments and results are pickled."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "args").write_bytes(pickle.dumps(args))
        port = free_port()
        processes = [_start(rank, n, port, target, folder) for rank in range(n)]
        try:
            _wait(processes, folder, timeout_s)
        finally:
            for process in processes:
                process.kill()
                process.wait()
        return [pickle.loads((folder / f"result{rank}").read_bytes()) for rank in range(n)]


def _start(rank: int, n: int, port: int, target: str, folder: Path) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    log = (folder / f"log{rank}").open("wb")
    command = [sys.executable, str(Path(__file__).resolve()), target, str(folder)]
    return subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)


def _wait(processes: Sequence[subprocess.Popen[bytes]], folder: Path, timeout_s: float) -> None:
    """Returns when all have ended well. One failure ends the wait: the others hang in their collectives."""
    deadline = time.monotonic() + timeout_s
    while True:
        codes = [process.poll() for process in processes]
        failed = [rank for rank, code in enumerate(codes) if code]
        if not failed and time.monotonic() > deadline:
            failed = [rank for rank, code in enumerate(codes) if code is None]
        if failed:
            tails = "\n".join(f"rank {r}:\n{(folder / f'log{r}').read_text()[-3000:]}" for r in failed)
            raise AssertionError(f"exit codes {codes} (None: still running after {timeout_s:g} s)\n{tails}")
        if all(code == 0 for code in codes):
            return
        time.sleep(0.05)


def main(target: str, folder: Path) -> None:
    module, function = target.split(":")
    dist = connect(60)
    result = getattr(importlib.import_module(module), function)(
        dist, *pickle.loads((folder / "args").read_bytes())
    )
    (folder / f"result{dist.rank}").write_bytes(pickle.dumps(result))
    disconnect()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
