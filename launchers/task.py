"""One process of a stage inside a SLURM job. submitit carries the folder's name there and nothing else."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from alpacafarm.preemption import PEER_LOST, Preempted, listen
from launchers.failure import LAST_WORDS_S, rank_log, tail
from launchers.ports import agreed_port

WARNING = signal.SIGUSR2  # what submitit asks SLURM to send before the end
REQUEUE_S = 300.0  # a busy controller takes its time
TRY = "try"  # the file in the stage's folder that names the latest try
NAME_TRY = "$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}"  # in the job's shell, see `latest_try`
TRY_EVERY_S = 2.0


@dataclass(frozen=True)
class Task:
    """What submitit calls in every task of the job."""

    folder: str
    worker: str

    def __call__(self) -> None:
        rank = join()
        with rank_log(Path(self.folder), rank).open("ab", buffering=0) as file:
            for descriptor in (1, 2):
                os.dup2(file.fileno(), descriptor)
        code = self.run(rank)
        if code == Preempted.exit_code:
            requeue(rank)
        if code != 0:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # past submitit, which would pickle what nobody reads
        (Path(self.folder) / well_ended(rank)).touch()

    def run(self, rank: int) -> int:
        end_with_this_try(Path(self.folder))
        listen(WARNING)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit ignores it
        sys.argv = [self.worker, self.folder]
        try:
            code = int(import_module(self.worker).main())
        except Exception as error:
            traceback.print_exc()
            log = rank_log(Path(self.folder), rank)
            told = f"{type(error).__name__}: {error}\n  log: {log}"
            note_failure(Path(self.folder), told)
            return 1
        if rank > 0 and code not in (0, Preempted.exit_code, PEER_LOST):
            time.sleep(LAST_WORDS_S)  # SLURM ends rank 0 when this one has ended
            log = rank_log(Path(self.folder), rank)
            note_failure(Path(self.folder), f"rank {rank} failed\n  log: {log}, which ends:\n{tail(log)}")
        return code


def end_with_this_try(folder: Path) -> None:
    """Ends this process once a later try of the stage has begun. On a node that SLURM has lost sight of
    nobody else does, and two tries would delete each other's checkpoints."""
    this = int(os.environ["SLURM_JOB_ID"]), int(os.environ.get("SLURM_RESTART_COUNT", "0"))

    def watch() -> None:
        while (latest := latest_try(folder)) <= this:
            time.sleep(TRY_EVERY_S)
        print(
            f"try {latest[0]}.{latest[1]} of the stage has begun: {this[0]}.{this[1]} ends", file=sys.stderr
        )
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-this-try", daemon=True).start()


def latest_try(folder: Path) -> tuple[int, int]:
    """The job's number, and how often SLURM has put it into its queue again; zeros where that cannot be read
    now: the stage is published, or the file system is away, as it is where the node is."""
    try:
        job, _, restart = (folder / TRY).read_text().strip().partition(".")
        return int(job), int(restart)
    except (OSError, ValueError):
        return 0, 0


def well_ended(rank: int) -> str:
    """The file in the stage's folder by which a process says so."""
    return f"rank{rank}.ok"


def join() -> int:
    """Sets what `torchrun` would: who this process is and where the ranks meet. Returns its rank."""
    import submitit

    from launchers.orphans import PARENT

    job = submitit.JobEnvironment()
    # A process of an earlier try, on a node that SLURM has lost, must not be met.
    meeting = int(job.job_id) + 101 * int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    os.environ.pop(PARENT, None)  # of the command that submitted, on another machine perhaps
    os.environ |= {
        "RANK": str(job.global_rank),
        "WORLD_SIZE": str(job.num_tasks),
        "LOCAL_RANK": str(job.local_rank),
        "LOCAL_WORLD_SIZE": str(job.num_tasks // job.num_nodes),
        "MASTER_ADDR": job.hostnames[0],
        "MASTER_PORT": str(agreed_port(meeting)),
    }
    os.environ.setdefault("OMP_NUM_THREADS", os.environ.get("SLURM_CPUS_PER_TASK", "1"))
    return int(job.global_rank)


def note_failure(folder: Path, told: str) -> None:
    """For the command that waits: what failed first, whichever rank it was."""
    path = folder / "error.json"
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps({"type": "StageError", "message": told, "exit_code": 1}))
    except FileExistsError:
        pass


def requeue(rank: int) -> None:
    """Rank 0 puts the job back into the queue, which ends this try: all wait for that.

    Returns where that cannot be done; the command that waits then tries again with another job.
    """
    if rank == 0:
        try:
            asked = ["scontrol", "requeue", os.environ["SLURM_JOB_ID"]]
            subprocess.run(asked, timeout=REQUEUE_S, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            print(f"not requeued: {error}", file=sys.stderr)
            return
    time.sleep(REQUEUE_S)
