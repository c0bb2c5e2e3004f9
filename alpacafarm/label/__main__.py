"""The command: `python -m alpacafarm.label FOLDER [--port N] [--host H] [--token T] [--open] [--write FILE]`.

Serves a page for blind pairwise labels over the folder that a waiting run named, until Ctrl-C. Exit codes: 0
when it was stopped, 2 for wrong arguments or a folder without pairs, 1 where labels cannot be kept.
"""

import argparse
import contextlib
import errno
import re
import secrets
import signal
import socket
import sys
import webbrowser
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from alpacafarm.data.rows import write_rows
from alpacafarm.errors import AlpacaFarmError, SpecError
from alpacafarm.label import guard
from alpacafarm.label.folder import Folder, opened
from alpacafarm.label.verdicts import judged
from alpacafarm.spec.judge import MOST_LABELS

PORT = 8642
TOKEN = re.compile(r"[\w-]{12,200}", re.ASCII)  # one that a person chooses goes into addresses and cookies
GRACE_S = 2  # for requests that are being answered when the server is stopped


def main(arguments: Sequence[str] | None = None) -> int:
    asked = parsed(arguments)
    try:
        folder = opened(asked.folder)
        if asked.labels_per_pair is not None:
            folder.labels.ask_for(labels_per_pair=asked.labels_per_pair, goal=folder.labels.task().goal)
        if asked.write is not None:
            return write(folder, asked.write)
        return serve(folder, asked)
    except AlpacaFarmError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except OSError as error:
        print(f"the disk refuses: {error}", file=sys.stderr)
        return AlpacaFarmError.exit_code
    except KeyboardInterrupt:  # before the page was served
        return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m alpacafarm.label", description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder that a waiting run named")
    parser.add_argument("--port", type=int, default=PORT, help=f"default: {PORT}; 0 takes a free one")
    parser.add_argument(
        "--host", default="127.0.0.1", help="another address lets other machines in, who need the token"
    )
    parser.add_argument("--token", help="default: none on 127.0.0.1, elsewhere one is drawn and printed")
    parser.add_argument("--open", action="store_true", help="open the page in the browser of this machine")
    parser.add_argument(
        "--labels-per-pair", type=int, metavar="N", help="people for each pair of an own folder"
    )
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the judged pairs there, and end")
    found = parser.parse_args(arguments)
    if found.token is not None and not TOKEN.fullmatch(found.token):
        parser.error("--token: must be 12 letters, digits, - or _, or more; leave it out to have one drawn")
    if found.labels_per_pair is not None and not 1 <= found.labels_per_pair <= MOST_LABELS:
        parser.error(f"--labels-per-pair: must be from 1 to {MOST_LABELS:,}")
    if not 0 <= found.port < 2**16:
        parser.error("--port: must be from 0 to 65535")
    return found


def write(folder: Folder, path: Path) -> int:
    """The judged pairs by majority, as `eval/judge=recorded` and `given.pairs` read them."""
    task, labels = folder.labels.task(), folder.labels.given()
    rows = judged(folder.pairs.values(), labels, labels_per_pair=task.labels_per_pair, count="majority")
    write_rows(path, rows)
    print(f"{len(rows)} of {len(folder.pairs)} pairs have a verdict: {path}")
    return 0


def serve(folder: Folder, asked: argparse.Namespace) -> int:
    """Until SIGINT or SIGTERM."""
    import uvicorn

    from alpacafarm.label.app import build

    loopback = guard.is_loopback(asked.host)
    token = asked.token or (None if loopback else secrets.token_urlsafe(24))
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn raises it again when it has stopped
        signal.signal(number, _ended)
    with bound(asked.host, asked.port) as listening, contextlib.suppress(KeyboardInterrupt):
        address = page_address(asked.host, listening.getsockname()[1], token)
        config = uvicorn.Config(
            build(folder, token=token, bound_to_loopback=loopback),
            log_level="warning",
            access_log=False,  # it would have the token
            server_header=False,
            lifespan="off",
            ws="none",
            timeout_graceful_shutdown=GRACE_S,
        )
        standing = folder.labels.standing()
        print(f"{standing.judged} of {standing.goal} pairs are labelled in {folder.path}")
        print(f"Label them at {address} (Ctrl-C stops the page and keeps every label)", flush=True)
        if asked.open:
            webbrowser.open(address)
        uvicorn.Server(config).run(sockets=[listening])
    print(f"Stopped. {folder.labels.standing().labels} labels are kept in {folder.path}", flush=True)
    return 0


def _ended(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def bound(host: str, port: int) -> socket.socket:
    """SpecError where the address cannot be had."""
    try:
        kind, *_, place = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(kind)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(place)
        found.listen()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            told = "is in use, perhaps by another of these pages; choose another with --port, or --port 0"
            raise SpecError(f"--port {port}: {told} for any free one") from None
        raise SpecError(f"--host {host} --port {port}: cannot be had ({error}); choose others") from None
    return found


def page_address(host: str, port: int, token: str | None) -> str:
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


if __name__ == "__main__":
    sys.exit(main())
