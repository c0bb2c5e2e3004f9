"""A process that claims the stage `sft`: `python maker.py STORE`. It publishes when told to."""

import logging
import os
import sys
from pathlib import Path

from alpacafarm.artifacts.store import Store
from tests.unit.artifacts.stored import stage


def main(root: str) -> None:
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    store = Store(Path(root))
    with store.claim(stage()) as claim:
        if claim.artifact is not None:
            print("reused", flush=True)
            return
        scratch = claim.folder / "scratch"
        earlier = [path.name for path in scratch.iterdir()]
        (scratch / f"by-{os.getpid()}").write_text("state")
        print("resumed from" if claim.resumed else "began", *earlier, flush=True)
        sys.stdin.readline()
        (claim.folder / "out" / "maker").write_text(str(os.getpid()))
        store.publish(stage(), claim.folder)
        print("made", flush=True)


main(*sys.argv[1:])
