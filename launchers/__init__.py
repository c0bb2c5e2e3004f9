"""How the processes of a stage start on a given site. Loaded by dotted path, `package.module:Class`.

A launcher is built as `Class(cluster, world)` with the ClusterSpec and the number of processes. It runs
stages when they are waited for, one after the other, unless the site has a queue of its own. Where `at_once`
or `room` is above 1 (the class must have both), stages are submitted and waited for in threads, `cancel` is
called in another, and what waits must end by it.
"""

from collections.abc import Callable
from importlib import import_module
from typing import cast

from alpacafarm.errors import SpecError
from alpacafarm.ports import Launcher
from alpacafarm.spec.cluster import ClusterSpec

LauncherClass = Callable[[ClusterSpec, int], Launcher]


def load(dotted: str) -> LauncherClass:
    """The launcher's class; SpecError where there is none."""
    module, _, name = dotted.partition(":")
    try:
        found = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SpecError(
            f"cluster.launcher={dotted} cannot be loaded ({error}); "
            "it must be package.module:Class, such as launchers.local:Local"
        ) from error
    absent = [name for name in ("at_once", "room", "submit", "wait", "cancel") if not hasattr(found, name)]
    if not callable(found) or absent:
        lacks = ", ".join(absent) or "class"
        raise SpecError(
            f"cluster.launcher={dotted} is no launcher (it has no {lacks}); it must be a class with what "
            "Launcher in alpacafarm/ports.py has"
        )
    return cast("LauncherClass", found)
