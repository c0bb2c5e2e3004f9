"""All processes of a stage on this machine, with the environment that torchrun would give them."""

import fcntl
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

from alpacafarm.errors import AlpacaFarmError, StageError
from alpacafarm.spec.cluster import ClusterSpec
from launchers.failure import LAST_WORDS_S, failure, rank_log, tail
from launchers.gpus import visible_gpus
from launchers.inline import Inline, run_here, stage_name, uses_devices
from launchers.orphans import PARENT
from launchers.ports import free_port

GRACE_S = 12.0  # between SIGTERM and SIGKILL; `api.asker` waits 10 s for what is paid for
CONSOLE = "ALPACAFARM_CONSOLE"  # where alpacafarm.tracking.progress looks for the console's descriptor

Rank = subprocess.Popen[bytes]


class Local(Inline):
    """With one process in this one, unless `subprocesses`; else one process for each rank, all or none.

    Stages that are waited for from threads run beside each other, so each has processes of its own, and its
    share of the GPUs where these suffice.
    """

    def __init__(
        self,
        cluster: ClusterSpec,
        world: int = 1,
        *,
        worker: str = "alpacafarm.worker",
        subprocesses: bool = False,
    ) -> None:
        super().__init__(cluster, world, worker=worker)
        # A process of its own for each stage leaves nothing of it on the GPU.
        gpus = visible_gpus()
        self.subprocesses = subprocesses or world > 1 or bool(gpus)
        self.at_once = cluster.at_once or 1
        self.room = cluster.at_once or max(1, (len(gpus) or cores()) // world)
        self.shares: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        for first in range(0, self.room * world, world):
            suffice = len(gpus) >= self.room * world
            self.shares.put(",".join(gpus[first : first + world]) if suffice else None)
        self.beside: list[list[Rank]] = []  # ranks of the stages that run beside others
        self.cancelled = False
        self.lock = threading.Lock()

    def run(self, folder: Path) -> None:
        if threading.current_thread() is not threading.main_thread():
            self._run_beside(folder, self.world if uses_devices(folder) else 1)
        elif self.subprocesses and uses_devices(folder):
            ranks: list[Rank] = []
            with _sigterm_interrupts(), _ended(ranks):
                self._start(folder, ranks, self.world, self._threads(self.world), _console())
                _wait(folder, ranks)
        else:
            run_here(folder, self.worker)

    def cancel(self) -> None:
        """Ends the stages that run beside each other; none begins any more."""
        with self.lock:
            self.cancelled = True
            running = [process for ranks in self.beside for process in ranks]
        _end(running)

    def _run_beside(self, folder: Path, world: int) -> None:
        ranks: list[Rank] = []
        share = self.shares.get()
        own = self._threads(self.world * self.room)
        if share is not None:
            own["CUDA_VISIBLE_DEVICES"] = share
        try:
            with _ended(ranks):
                with self.lock:
                    if self.cancelled:
                        raise StageError(f"stage {stage_name(folder)} was cancelled")
                    self.beside.append(ranks)
                    self._start(folder, ranks, world, own, None)
                _wait(folder, ranks)
        finally:
            self.shares.put(share)
            with self.lock:
                self.beside = [others for others in self.beside if others is not ranks]

    def _threads(self, processes: int) -> dict[str, str]:
        """The environment's word for torch's threads where `processes` share the cores."""
        if "OMP_NUM_THREADS" in os.environ:
            return {}
        return {"OMP_NUM_THREADS": str(self.cluster.threads or max(1, cores() // processes))}

    def _start(
        self, folder: Path, ranks: list[Rank], world: int, own: dict[str, str], console: int | None
    ) -> None:
        """Adds to `ranks` as it goes, so that those are ended that have started when another cannot."""
        (folder / "error.json").unlink(missing_ok=True)
        alone: int | None = None
        shared = own | {
            "WORLD_SIZE": str(world),
            "LOCAL_WORLD_SIZE": str(world),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
            "PYTHONUNBUFFERED": "1",  # the log is complete whatever ends the process
            PARENT: str(os.getpid()),
        }
        command = [sys.executable, "-P", "-m", self.worker, str(folder)]
        try:
            alone = _alone(folder)
            for rank in range(world):
                place = {"RANK": str(rank), "LOCAL_RANK": str(rank)}
                kept = [alone]
                if rank == 0 and console is not None:
                    place[CONSOLE] = str(console)
                    kept.append(console)
                with rank_log(folder, rank).open("ab") as out:
                    environment = os.environ | shared | place
                    ranks.append(_popen(command, environment, out.fileno(), kept))
        finally:
            for descriptor in (alone, console):
                if descriptor is not None:
                    os.close(descriptor)


def cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _popen(command: Sequence[str], environment: dict[str, str], out: int, kept: Sequence[int]) -> Rank:
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=subprocess.STDOUT,
        pass_fds=kept,
    )


def _wait(folder: Path, ranks: Sequence[Rank]) -> None:
    """Returns when all have ended well; raises for the first that has not."""
    ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
    for number, process in enumerate(ranks):
        threading.Thread(target=lambda n=number, p=process: ended.put((n, p.wait())), daemon=True).start()
    for _ in ranks:
        rank, code = ended.get()
        if code != 0:
            with suppress(subprocess.TimeoutExpired):
                ranks[0].wait(LAST_WORDS_S)
            _end(ranks)
            raise _error(folder, rank, code, len(ranks))


@contextmanager
def _ended(ranks: Sequence[Rank]) -> Iterator[None]:
    """None of them runs after the block."""
    try:
        yield
    finally:
        _end(ranks)


def _end(ranks: Sequence[Rank]) -> None:
    """SIGTERM to those that still run, SIGKILL to those that do not mind it."""
    try:
        for process in ranks:
            process.terminate()
        deadline = time.monotonic() + GRACE_S
        for process in ranks:
            process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:  # also when an impatient user interrupts the wait
        for process in ranks:
            process.kill()
        for process in ranks:
            process.wait()


def _error(folder: Path, rank: int, code: int, world: int) -> AlpacaFarmError:
    """The error that rank 0 wrote if it is one of ours, else what is known of the rank that ended first."""
    if (folder / "error.json").exists():
        return failure(folder)
    how = f"exited with code {code}" if code > 0 else f"was killed by {signal.Signals(-code).name}"
    path = rank_log(folder, rank)
    return StageError(
        f"stage {stage_name(folder)} failed: rank {rank} of {world} {how}\n"
        f"  folder: {folder}\n  log: {path}, which ends:\n{tail(path)}"
    )


def _alone(folder: Path) -> int:
    """A locked descriptor for the ranks to inherit: it stays locked until the last of them has ended.

    After kill -9 of a launcher its ranks live on for a moment, and would write into the folder beside ours.
    """
    descriptor = os.open(folder / "ranks.lock", os.O_RDWR | os.O_CREAT)
    deadline = time.monotonic() + 2 * GRACE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return descriptor
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(descriptor)
                raise StageError(
                    f"stage {stage_name(folder)} cannot start: processes of an earlier run still work in "
                    f"{folder}; end them and run again"
                ) from None
            time.sleep(0.1)


def _console() -> int | None:
    """A copy of stderr's descriptor, where it has one."""
    try:
        return os.dup(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return None


@contextmanager
def _sigterm_interrupts() -> Iterator[None]:
    """Makes SIGTERM unwind like Ctrl-C while ranks run, unless somebody handles it already."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt("SIGTERM")

    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
