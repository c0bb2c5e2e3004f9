"""Whatever ends a training on a SLURM before its time: it goes on, to the bits of an undisturbed one.

`--times 10` disturbs ten runs in each way, each at another step; without it one in each of `IN_SUITE`.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from launchers.slurm import state
from tests.runs import farm
from tests.slurm import site, whole

STEPS = 12
SPEC = (f"method.steps={STEPS}",)
OFTEN = "cluster.checkpoint_every_s=0.2"


@pytest.fixture(scope="module")
def undisturbed(upstream, tmp_path_factory):
    run = whole.started(tmp_path_factory.mktemp("undisturbed"), upstream, "cluster=local_2proc", spec=SPEC)
    run.finish()
    assert len(run.log()) == STEPS
    return run


def scontrol(*command: str) -> None:
    subprocess.run(["scontrol", *command], check=True, stdout=subprocess.DEVNULL)


# Each returns what the command says where SLURM has given up the job and another one takes over, else "".


def requeue(site_home: Path, job: str, number: int) -> str:
    scontrol("requeue", job)
    return ""


def warning(site_home: Path, job: str, number: int) -> str:
    subprocess.run(["scancel", "--signal=USR2", job], check=True)
    site.until(lambda: are_warned(job), "no warning comes")
    return ""


def time_limit(site_home: Path, job: str, number: int) -> str:
    """With the warning before it, `cluster.slurm.signal_s` or earlier, or every other time itself."""
    unheard = number % 2 == 1
    scontrol("update", f"JobId={job}", f"EndTime=now+{1 if unheard else 100}")
    if unheard:
        site.until(lambda: state(job) != "RUNNING", "the time limit does not come")
        return "ended as TIMEOUT"
    site.until(lambda: are_warned(job), "no warning comes")
    return ""


def pre_emption(site_home: Path, job: str, number: int) -> str:
    """By a job that needs both nodes, and is short."""
    command = ["sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--mem=10", "--wrap", "sleep 1"]
    subprocess.run(command, cwd=site_home, check=True, stdout=subprocess.DEVNULL)
    site.until(lambda: are_warned(job), "no pre-emption comes")
    return ""


def lost_node(site_home: Path, job: str, number: int) -> str:
    """The second or the first. Its process lives on for a while, as where only the network has lost it."""
    node = site.nodes(site_home)[1 - number % 2]
    os.kill(int((site_home / "run" / f"slurmd.{node}.pid").read_text()), signal.SIGKILL)
    site.until(lambda: state(job) != "RUNNING", "the node is not missed")
    site.start_node(site_home, node)
    return ""


def killed_process(site_home: Path, job: str, number: int) -> str:
    os.kill(tasks(job)[1 - number % 2], signal.SIGKILL)
    return "ended as FAILED"


DISTURBANCES = (requeue, warning, time_limit, pre_emption, lost_node, killed_process)
IN_SUITE = (requeue, warning, killed_process)  # the others wait for SLURM's own clocks


def test_a_disturbed_training_ends_with_the_same_bits(home, upstream, undisturbed, tmp_path, disturb, number):
    run = whole.started(tmp_path / "run", upstream, *whole.NODES, OFTEN, spec=SPEC)
    folder = saved(run, step=1 + number % (STEPS - 3))
    job = json.loads((folder / "slurm.json").read_text())["job"]
    with frozen(job):  # so that it cannot end before
        step = json.loads((folder / "scratch" / "latest.json").read_text())["step"]
        said = disturb(home, job, number)
    run.finish()
    told = (run.policy / "stage.log").read_text()
    assert [n for n in range(step, STEPS) if f"ppo: goes on from step {n}\n" in told], told
    if said:
        assert said in run.said()
    else:
        assert "ended as" not in run.said()
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True)
        assert " Restarts=1 " in shown.stdout
    assert farm.hashes(run.policy) == farm.hashes(undisturbed.policy)


def saved(run: whole.Run, step: int) -> Path:
    """The folder of the training, when it has saved that step or a later one."""
    latest: list[Path] = []

    def far_enough() -> bool:
        assert run.process.poll() is None, run.said()
        latest[:] = run.home.glob("store/policy/*.partial/scratch/latest.json")
        return bool(latest) and json.loads(latest[0].read_text())["step"] >= step

    site.until(far_enough, "nothing is saved", whole.PATIENCE_S)
    return latest[0].parents[1]


@contextmanager
def frozen(job: str) -> Iterator[None]:
    """The job's processes stand still meanwhile; those that are left go on afterwards."""
    pids = tasks(job).values()
    assert len(pids) == 2
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in pids:
        if site.runs(pid):
            os.kill(pid, signal.SIGCONT)


def tasks(job: str) -> dict[int, int]:
    """The job's processes by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            told = dict(
                pair.split("=", 1)
                for pair in (folder / "environ").read_text(errors="replace").split("\0")
                if pair.startswith("SLURM_")
            )
            command = (folder / "cmdline").read_text(errors="replace")
        except OSError:  # it has ended
            continue
        is_task = "submitit.core._submit" in command and "SLURM_PROCID" in told
        if told.get("SLURM_JOB_ID") == job and is_task and not command.startswith("srun"):
            found[int(told["SLURM_PROCID"])] = int(folder.name)
    return found


def are_warned(job: str) -> bool:
    """Whether a warning waits for each of the job's processes, which stand still."""
    masks = [
        line.split()[1]
        for pid in tasks(job).values()
        for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith("ShdPnd")
    ]
    return all(int(mask, 16) >> (signal.SIGUSR2 - 1) & 1 for mask in masks)
