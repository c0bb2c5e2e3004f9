"""The site's warning that this process will soon be ended: it sets a flag, and a training saves and stops."""

import signal
from types import FrameType

from alpacafarm.errors import AlpacaFarmError

PEER_LOST = 74  # exit code, EX_IOERR of sysexits.h: another rank is gone, and says itself why if it can

_warned = False


class Preempted(AlpacaFarmError):  # noqa: N818  # to stop when asked is no fault
    """The stage has saved its state and stopped; the launcher puts it back into its queue."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h


def listen(number: signal.Signals) -> None:
    """Takes `number` as the warning, from here on."""
    signal.signal(number, _note)


def is_warned() -> bool:
    return _warned


def _note(number: int, frame: FrameType | None) -> None:
    global _warned
    _warned = True
