"""Where a stage's time goes, and how much it gets done: `throughput` of the manifest."""

import resource
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from alpacafarm.ports import Dist

UNCOUNTED = frozenset({"setup", "compile", "evaluate"})  # phases that are not throughput


class Meter:
    """Seconds by phase, and real tokens, samples and computed tokens (padding included) of this rank.

    A phase inside a phase stops the outer one's clock, so that the seconds add up. What passes outside every
    phase, or in a phase of UNCOUNTED, is not throughput. `state` goes into checkpoints: a resumed stage then
    reports the whole, without the work that was lost.
    """

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._counts: Counter[str] = Counter()
        self._peak_bytes = 0
        self._open: list[str] = []
        self._since = 0.0
        _forget_peak()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._settle()
        self._open.append(name)
        try:
            yield
        finally:
            self._settle()
            self._open.pop()

    def count(self, *, tokens: int = 0, samples: int = 0, computed: int = 0) -> None:
        self._counts.update(tokens=tokens, samples=samples, computed=computed)

    def summary(self, dist: Dist | None = None) -> dict[str, Any]:
        """With `dist` (all ranks call): counts summed, memory maximised over ranks. Seconds are ours."""
        state = self.state()
        ranks = [state] if dist is None else dist.gather(state)
        total = {name: sum(rank[name] for rank in ranks) for name in ("tokens", "samples", "computed")}
        counted = {name: spent for name, spent in state["seconds"].items() if name not in UNCOUNTED}
        spent = sum(counted.values())
        return {
            "tokens_per_second": total["tokens"] / spent if spent else None,
            "samples_per_second": total["samples"] / spent if spent else None,
            "peak_memory_bytes": max(rank["peak_memory_bytes"] for rank in ranks),
            "seconds": counted,
            "computed_per_real_token": total["computed"] / total["tokens"] if total["tokens"] else None,
            **total,
        }

    def state(self) -> dict[str, Any]:
        """Plain JSON values, up to this moment."""
        self._settle()
        self._peak_bytes = max(self._peak_bytes, peak_memory_bytes())
        counts = {name: self._counts[name] for name in ("tokens", "samples", "computed")}
        return {"seconds": dict(self._seconds), "peak_memory_bytes": self._peak_bytes, **counts}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from an earlier `state`; what was counted before the call is forgotten."""
        self._settle()
        self._seconds = defaultdict(float, state["seconds"])
        self._counts = Counter({name: state[name] for name in ("tokens", "samples", "computed")})
        self._peak_bytes = state["peak_memory_bytes"]

    def _settle(self) -> None:
        """Charges the time since the last call to the innermost phase."""
        if self._open:
            _finish_kernels()
            self._seconds[self._open[-1]] += time.perf_counter() - self._since
        self._since = time.perf_counter()


def peak_memory_bytes() -> int:
    """Most that was allocated on the GPU, or most that was resident where there is none."""
    torch = sys.modules.get("torch")  # whoever has not loaded torch has nothing on a GPU
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "linux":  # where ru_maxrss begins with what the process held that started this one
        told = Path("/proc/self/status").read_text()
        return int(told.partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def _forget_peak() -> None:
    """What an earlier stage of this process took at most is not this one's."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
    if sys.platform == "linux":
        with suppress(OSError):  # a container may forbid it: then the process's peak is the stage's
            Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew, see man 5 proc


def _finish_kernels() -> None:
    """Kernels run behind Python; without this their time falls into a later phase."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.synchronize()
