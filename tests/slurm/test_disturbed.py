"""Whatever ends a training on a SLURM before its time: it goes on, to the bits of an undisturbed one.

`--times 10` disturbs ten runs in each way, each at another step.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
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
    return run


def scontrol(*command: str) -> None:
    subprocess.run(["scontrol", *command], check=True, stdout=subprocess.DEVNULL)


def requeued(site_home: Path, job: str) -> None:
    scontrol("requeue", job)


def signalled(site_home: Path, job: str) -> None:
    subprocess.run(["scancel", "--signal=USR2", job], check=True)


def warned_of_its_time_limit(site_home: Path, job: str) -> None:
    """SLURM looks at limits every 30 s, and warns `cluster.slurm.signal_s` before or earlier."""
    scontrol("update", f"JobId={job}", "EndTime=now+100")
    site.until(lambda: all(is_signalled(pid) for pid in tasks(job).values()), "no warning comes")


def out_of_time(site_home: Path, job: str) -> None:
    scontrol("update", f"JobId={job}", "EndTime=now+1")
    site.until(lambda: state(job) != "RUNNING", "the time limit does not come")


def pre_empted(site_home: Path, job: str) -> None:
    """By a job that needs all cores, and is short."""
    command = ["sbatch", "--partition=urgent", "--nodes=2", "--exclusive", "--mem=10", "--wrap", "sleep 1"]
    subprocess.run(command, cwd=site_home, check=True, stdout=subprocess.DEVNULL)
    site.until(lambda: all(is_signalled(pid) for pid in tasks(job).values()), "no pre-emption comes")


def without_a_node(site_home: Path, job: str, which: int = 1) -> None:
    """Its processes live on for a while, as on a node that only the network has lost."""
    node = site.nodes(site_home)[which]
    pid_file = site_home / "run" / f"slurmd.{node}.pid"
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    site.until(lambda: state(job) != "RUNNING", "the node is not missed")
    site.start_node(site_home, node)


def without_its_first_node(site_home: Path, job: str) -> None:
    without_a_node(site_home, job, which=0)


def without_a_process(site_home: Path, job: str) -> None:
    os.kill(tasks(job)[1], signal.SIGKILL)


DISTURBANCES: dict[Callable[[Path, str], None], str] = {  # and what is said, where another job takes over
    requeued: "",
    signalled: "",
    warned_of_its_time_limit: "",
    out_of_time: "ended as TIMEOUT",
    pre_empted: "",
    without_a_node: "",
    without_its_first_node: "",
    without_a_process: "ended as FAILED",
}


@pytest.mark.parametrize("disturb", DISTURBANCES, ids=lambda disturb: disturb.__name__)
def test_a_disturbed_training_ends_with_the_same_bits(home, upstream, undisturbed, tmp_path, disturb, number):
    run = whole.started(tmp_path / "run", upstream, *whole.NODES, OFTEN, spec=SPEC)
    folder = saved(run, step=1 + number % (STEPS - 3))
    job = json.loads((folder / "slurm.json").read_text())["job"]
    with frozen(job):  # so that it cannot end before
        step = json.loads((folder / "scratch" / "latest.json").read_text())["step"]
        disturb(home, job)
    run.finish()
    told = (run.policy / "stage.log").read_text()
    assert [n for n in range(step, STEPS) if f"ppo: goes on from step {n}\n" in told], told
    if DISTURBANCES[disturb]:
        assert DISTURBANCES[disturb] in run.said()
    else:
        assert "ended as" not in run.said()
        shown = subprocess.run(["scontrol", "show", "job", job], capture_output=True, text=True, check=True)
        assert " Restarts=1 " in shown.stdout
    assert farm.hashes(run.policy) == farm.hashes(undisturbed.policy)
    assert run.evaluated()["eval"] == undisturbed.evaluated()["eval"]


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


def is_signalled(pid: int) -> bool:
    """Whether a warning waits for a process that stands still."""
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("ShdPnd")
    )
    return bool(int(line.split()[1], 16) >> (signal.SIGUSR2 - 1) & 1)
