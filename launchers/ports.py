"""Where the ranks of a stage meet: ports below those that Linux hands out itself.

Rank 0 listens only some seconds after the port was chosen; until then nobody else must be given it.
"""

import random
import socket
from contextlib import suppress

from alpacafarm.errors import StageError

FIRST, COUNT = 20000, 12000
TRIES = 100


def free_port() -> int:
    """One of this machine that nothing listens on. StageError where none is found."""
    for port in random.SystemRandom().sample(range(FIRST, FIRST + COUNT), TRIES):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise StageError(f"none of {TRIES} ports from {FIRST} to {FIRST + COUNT} is free on this machine")


def agreed_port(number: int) -> int:
    """The same on every machine that knows the number; equal for two numbers with equal remainders only."""
    return FIRST + number % COUNT
