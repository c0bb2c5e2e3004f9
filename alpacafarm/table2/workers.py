"""Several runs at the same time, each in a process of its own; locks in the store let them share stages."""

import contextlib
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import TypeVar

from alpacafarm import run
from launchers.orphans import PARENT, die_with_parent

A = TypeVar("A")
B = TypeVar("B")
THREADS = "OMP_NUM_THREADS"
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def processes(jobs: int) -> Iterator[ProcessPoolExecutor]:
    """Ends them when the block is left early. Each computes with one thread unless OMP_NUM_THREADS says more.

    They are started afresh, not forked: torch's threads do not survive a fork.
    """
    os.environ.setdefault(THREADS, "1")
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=begin, initargs=(os.getpid(),))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown()


def begin(parent: int) -> None:
    """Leaves the console to the table's own lines. An idle process then dies of a signal without a word."""
    silence = os.open(os.devnull, os.O_WRONLY)
    for console in (1, 2):
        os.dup2(silence, console)
    os.environ[PARENT] = str(parent)
    die_with_parent()
    run.settle()
    logging.basicConfig(level=logging.INFO, handlers=[logging.NullHandler()])
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)


def interruptible(perform: Callable[[A], B], item: A) -> B:
    """A signal unwinds `perform` as KeyboardInterrupt, which the process that waits gets."""
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler)
    try:
        return perform(item)
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_DFL)
