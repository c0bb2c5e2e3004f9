"""Stages as SLURM jobs, through submitit: one task for each process, no launcher inside the job.

The command that submits waits for its jobs. Its end cancels them; after kill -9 they go on, and the same
command finds them by the `slurm.json` in the stage's folder. A job that the site ends before its time
(pre-emption, time limit, a node or process lost) goes on from the stage's last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shlex
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alpacafarm.errors import SpecError, StageError
from alpacafarm.ports import Ticket
from alpacafarm.spec.cluster import ClusterSpec, SlurmSpec, TaskSpec
from launchers.failure import failure, rank_log, tail
from launchers.inline import stage_name, uses_devices
from launchers.task import NAME_TRY, TRY, Task, well_ended

log = logging.getLogger(__name__)
leaving = threading.Lock()  # held by the thread that submits, see `outside`

JOB = "slurm.json"
COMMANDS = ("sbatch", "srun", "squeue", "scancel")
ACTIVE = {
    "PENDING",
    "CONFIGURING",
    "RUNNING",
    "COMPLETING",
    "SUSPENDED",
    "STOPPED",
    "REQUEUED",
    "REQUEUE_HOLD",
    "REQUEUE_FED",
    "RESIZING",
    "SIGNALING",
    "STAGE_OUT",
}
UNBOUNDED = 1000  # stages at once, each with a thread that looks at the queue
DOOMED = {"CANCELLED", "DEADLINE", "OUT_OF_MEMORY", "BOOT_FAIL"}  # trying again would end alike


@dataclass
class Job:
    """A stage in SLURM's queue."""

    folder: Path
    after: Sequence[Ticket]
    number: str
    tries: int = 1


class Slurm:
    at_once = room = 1

    def __init__(self, cluster: ClusterSpec, world: int = 1, *, worker: str = "alpacafarm.worker") -> None:
        if cluster.slurm is None:
            raise SpecError(
                "cluster.slurm=null: launchers.slurm needs what to ask sbatch for; set cluster=slurm, or "
                "cluster.slurm in a file of your own"
            )
        absent = [name for name in COMMANDS if not shutil.which(name)]
        if absent:
            raise SpecError(
                f"cluster.launcher={cluster.launcher}: needs {', '.join(absent)}, which PATH does not have; "
                "give the command on a machine that submits to SLURM, or set cluster=local"
            )
        self.cluster, self.spec, self.world, self.worker = cluster, cluster.slurm, world, worker
        self.at_once = self.room = cluster.at_once or UNBOUNDED
        self.jobs: dict[str, Job] = {}
        self.ended = threading.Event()

    def submit(self, folder: Path, after: Sequence[Ticket]) -> Job:
        """The stage's job: the one that is in the queue already, else a new one once `after` is done."""
        self.wait(after)
        number = queued(folder) or known(folder)  # what is in the queue may be newer than what was noted
        if number is not None and (state(number) in ACTIVE or self._ended_well(folder)):
            log.info("stage %s is SLURM job %s already", stage_name(folder), number)
        else:
            number = self._sbatch(folder)
        job = Job(folder, after, number)
        self.jobs[number] = job
        return job

    def wait(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            assert isinstance(ticket, Job)
            while (ending := self._ending(ticket)) is not None:
                self._again(ticket, ending)

    def cancel(self) -> None:
        """Takes all jobs out of the queue; those who wait for them get a StageError."""
        self.ended.set()
        if self.jobs:
            slurm("scancel", *self.jobs)

    def _sbatch(self, folder: Path) -> str:
        (folder / "error.json").unlink(missing_ok=True)  # the job may end before it takes it away itself
        executor = self._executor(folder)
        try:
            with outside():
                job = executor.submit(Task(str(folder.resolve()), self.worker))
        except BaseException as error:
            with suppress(StageError):  # the job may be in the queue nevertheless
                if (number := queued(folder)) is not None:
                    slurm("scancel", number)
            if not isinstance(error, Exception):
                raise
            # submitit hands on what sbatch says in errors of several types
            raise StageError(
                f"stage {stage_name(folder)} was refused by sbatch: {str(error).strip()}\n"
                f"  asked for: {self.resources(folder)}\n  change it by the keys of cluster.slurm"
            ) from error
        (folder / JOB).write_text(json.dumps({"job": job.job_id}))
        log.info("stage %s is SLURM job %s", stage_name(folder), job.job_id)
        return str(job.job_id)

    def _executor(self, folder: Path) -> Any:
        import submitit

        executor = submitit.SlurmExecutor(folder / "slurm", max_num_timeout=self.spec.tries)
        asked = self.resources(folder)
        # In the job, since SLURM may put it into the queue again itself. Logs stay.
        inside = shlex.quote(str(folder.resolve()))
        asked["comment"] = note(folder)
        begin = f"echo {NAME_TRY} > {inside}/{TRY}; rm -f {inside}/error.json {inside}/rank*.ok"
        asked["setup"] = [begin, *asked["setup"]]
        executor.update_parameters(**asked)
        return executor

    def resources(self, folder: Path) -> dict[str, Any]:
        """What submitit's executor is given for the stage in `folder`."""
        return resources(self.spec, stage_name(folder), uses_devices=uses_devices(folder))

    def _ending(self, job: Job) -> str | None:
        """Waits until the job has left the queue. How it has ended, or None where the stage is made."""
        before = ""
        try:
            while (now := state(job.number)) in ACTIVE:
                if now != before:
                    log.info("SLURM job %s of stage %s: %s", job.number, stage_name(job.folder), now)
                    before = now
                if self.ended.wait(self.spec.poll_s):
                    slurm("scancel", job.number)  # it may have been submitted meanwhile
                    raise StageError(f"stage {stage_name(job.folder)} was cancelled")
        except KeyboardInterrupt:
            self.cancel()
            raise
        if now == "COMPLETED" and made(job.folder, self._ranks(job.folder), patience_s=2 * self.spec.poll_s):
            return None
        if now == "GONE" and self._ended_well(job.folder):  # SLURM forgets jobs after some minutes
            return None
        return now

    def _ended_well(self, folder: Path) -> bool:
        """Whether a job has made the stage already: whatever begins it again takes the outcome away first."""
        return (folder / "outcome.json").exists() and made(folder, self._ranks(folder), patience_s=0.0)

    def _ranks(self, folder: Path) -> int:
        return self.spec.tasks if uses_devices(folder) else 1

    def _again(self, job: Job, ending: str) -> None:
        """Puts the job back into the queue, or says why not."""
        if (job.folder / "error.json").exists():
            raise failure(job.folder)
        if ending in DOOMED or job.tries >= self.spec.tries:
            path = log_of(job)
            raise StageError(
                f"stage {stage_name(job.folder)}: SLURM job {job.number} ended as {ending} "
                f"(try {job.tries} of cluster.slurm.tries={self.spec.tries})\n"
                f"  folder: {job.folder}\n  log: {path}, which ends:\n{tail(path)}"
            )
        log.warning("SLURM job %s of stage %s ended as %s", job.number, stage_name(job.folder), ending)
        del self.jobs[job.number]
        job.number, job.tries = self._sbatch(job.folder), job.tries + 1
        self.jobs[job.number] = job


def resources(spec: SlurmSpec, name: str, *, uses_devices: bool) -> dict[str, Any]:
    """Parameters of `submitit.SlurmExecutor` for a stage."""
    asked = {
        option.replace("-", "_"): v for option, v in sbatch_options(spec, uses_devices=uses_devices).items()
    }
    return {
        **asked,
        "job_name": f"alpacafarm {name}",
        "signal_delay_s": spec.signal_s,
        "setup": [*spec.setup, "export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"],
        "srun_args": ["--kill-on-bad-exit=1", *spec.srun],
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True},
    }


def sbatch_options(spec: SlurmSpec, *, uses_devices: bool) -> dict[str, str | int]:
    """What sbatch is asked for, by its own names; what is null is left to the site."""
    task: TaskSpec = spec if uses_devices else spec.light
    asked = {
        "partition": task.partition,
        "account": spec.account,
        "qos": spec.qos,
        "constraint": spec.constraint if uses_devices else None,
        "nodes": spec.nodes if uses_devices else 1,
        "ntasks-per-node": spec.tasks_per_node if uses_devices else 1,
        "gpus-per-node": (spec.gpus_per_node or None) if uses_devices else None,
        "cpus-per-task": task.cpus_per_task,
        "mem": None if task.memory_gb is None else f"{round(task.memory_gb * 1024)}M",
        "time": task.minutes,
    }
    return {option: value for option, value in asked.items() if value is not None}


@contextmanager
def outside() -> Iterator[None]:
    """The environment without the job that this command may run in: its limits would hold for other jobs."""
    with leaving:
        names = [
            name for name in os.environ if name.startswith(("SLURM_", "SLURMD_")) and name != "SLURM_CONF"
        ]
        inside = {name: os.environ.pop(name) for name in names}
        try:
            yield
        finally:
            os.environ.update(inside)


def log_of(job: Job) -> Path:
    """Of rank 0, or of the job where it ended before that began."""
    path = rank_log(job.folder, 0)
    return path if path.exists() else job.folder / "slurm" / f"{job.number}_0_log.out"


def known(folder: Path) -> str | None:
    """The number of the stage's job, from an earlier command."""
    try:
        return str(json.loads((folder / JOB).read_text())["job"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def note(folder: Path) -> str:
    """By which a job is known in the queue as that of the stage in `folder`."""
    return f"alpacafarm {hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:32]}"


def queued(folder: Path) -> str | None:
    """The number of the stage's latest job that SLURM has not ended, whether or not somebody wrote it down: a
    command may be killed, or sbatch fail, when the job is in the queue already."""
    states = "--states=PENDING,RUNNING,SUSPENDED,CONFIGURING"
    lines = slurm("squeue", "--me", "--noheader", states, "--format=%i %k").splitlines()
    numbers = [int(line.split(" ", 1)[0]) for line in lines if line.endswith(f" {note(folder)}")]
    return str(max(numbers)) if numbers else None


def state(number: str) -> str:
    """The job's state as SLURM calls it; GONE where it knows the job no more."""
    told = slurm("squeue", "--noheader", "--states=all", f"--jobs={number}", "--format=%T")
    return told.strip().split("\n")[0] or "GONE"


def slurm(*command: str) -> str:
    """What a command of SLURM prints. Where the controller is away for a while it is asked again."""
    for pause_s in (1, 5, 15, 60, 300):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0 or "Invalid job id" in done.stderr:
            return done.stdout
        log.warning("%s: %s", command[0], done.stderr.strip())
        time.sleep(pause_s)
    raise StageError(
        f"{' '.join(command)} keeps failing; the job goes on, and the same command finds it again"
    )


def made(folder: Path, ranks: int, *, patience_s: float) -> bool:
    """Whether all processes of the stage ended well. A shared file system may show it late."""
    deadline = time.monotonic() + patience_s
    while True:
        os.listdir(folder)  # makes an NFS client look again
        if all((folder / well_ended(rank)).exists() for rank in range(ranks)):
            return True
        if (folder / "error.json").exists() or time.monotonic() > deadline:
            return False
        time.sleep(0.2)
