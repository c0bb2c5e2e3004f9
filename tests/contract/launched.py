"""A worker without models: every rank does what `stage.json` says under `params`. For test_launchers.py."""

import json
import logging
import os
import signal
import sys
import time
from pathlib import Path

from alpacafarm import errors
from alpacafarm.preemption import PEER_LOST
from launchers.orphans import die_with_parent

RANK = int(os.environ.get("RANK", "0"))
NAMES = [
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "OMP_NUM_THREADS",
]


class PeerLostError(Exception):
    """As a failed collective tells it."""


def run_stage(folder: Path) -> None:
    told = json.loads((folder / "stage.json").read_text())
    seen = {name: os.environ.get(name) for name in NAMES} | {"pid": os.getpid(), "time": time.monotonic()}
    aside = folder / f"saw{RANK}.tmp"
    aside.write_text(json.dumps(seen))
    aside.rename(folder / f"saw{RANK}.json")
    for deed, argument in told["params"].get(str(RANK), {}).items():
        DEEDS[deed](argument)


def say(lines: int) -> None:
    for number in range(lines):
        print(f"line {number}", file=sys.stderr)


def fail(message: str) -> None:
    raise RuntimeError(message)


def ask(message: str) -> None:
    raise errors.NeedsLabels(message)


def progress(total: int) -> None:
    from alpacafarm.tracking.progress import progress as bar

    with bar(total, "sft", rank=RANK) as shown:
        shown.advance(total)


def ignore_sigterm(_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def mark(path: str) -> None:
    Path(path).touch()


def after(path: str) -> None:
    while not Path(path).exists():
        time.sleep(0.01)


def mark_on_sigterm(path: str) -> None:
    def end(*_: object) -> None:
        mark(path)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)


def signal_self(name: str) -> None:
    os.kill(os.getpid(), signal.Signals[name])


def lose_peer(_: object) -> None:
    raise PeerLostError


DEEDS = {
    "lose_peer": lose_peer,
    "say": say,
    "fail": fail,
    "ask": ask,
    "progress": progress,
    "ignore_sigterm": ignore_sigterm,
    "mark_on_sigterm": mark_on_sigterm,
    "mark": mark,
    "after": after,
    "signal": signal_self,
    "sleep": time.sleep,
    "exit": os._exit,
}


def main() -> int:
    die_with_parent()
    logging.basicConfig(level=logging.INFO)
    folder = Path(sys.argv[1])
    try:
        run_stage(folder)
    except PeerLostError:
        print("peer lost", flush=True)
        time.sleep(0.5)
        return PEER_LOST
    except errors.AlpacaFarmError as error:
        if RANK == 0:
            told = {"type": type(error).__name__, "message": str(error), "exit_code": error.exit_code}
            (folder / "error.json").write_text(json.dumps(told))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
