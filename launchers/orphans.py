"""Ends a rank whose launcher is gone: after kill -9 nobody else does, and it would go on writing."""

import os
import signal
import threading
import time

PARENT = "ALPACAFARM_PARENT"  # the launcher's process id
EVERY_S = 0.2


def die_with_parent() -> None:
    """Call once, first thing in the worker. Does nothing in a process that no launcher started.

    A thread asks for the parent's id. Linux's PR_SET_PDEATHSIG would also fire when only the *thread* ends
    that started us, and launchers may be called from threads.
    """
    if PARENT in os.environ:
        parent = int(os.environ[PARENT])
        threading.Thread(target=_watch, args=(parent,), name="die-with-parent", daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(EVERY_S)
    os.kill(os.getpid(), signal.SIGKILL)
