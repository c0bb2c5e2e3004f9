"""The command that submits, itself a SLURM job."""

import shlex
import shutil
import subprocess

from launchers.slurm import state
from tests.runs import farm
from tests.slurm import site, whole


def test_a_cancelled_parent_cancels_its_children(home, upstream, tmp_path):
    shutil.copytree(upstream, tmp_path / "store")
    asked = farm.tiny("ppo", "store=store", "hydra.run.dir=run", *whole.NODES, "eval=none")
    # It was given memory by another rule than its children are.
    options = [
        "--nodes=1",
        "--ntasks=1",
        "--cpus-per-task=1",
        "--mem-per-cpu=900",
        f"--output={tmp_path}/out",
    ]
    command = f"exec {shlex.join(farm.command(*asked))}"
    submitted = subprocess.run(
        ["sbatch", "--parsable", *options, "--wrap", command],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    parent = submitted.stdout.strip()
    site.until(lambda: begun(parent, tmp_path), "no child begins", whole.PATIENCE_S)
    children = jobs_beside(parent)
    subprocess.run(["scancel", parent], check=True)
    site.until(lambda: state(parent) == "CANCELLED", "the parent goes on")
    site.until(lambda: [state(child) for child in children] == ["CANCELLED"], "the child goes on")
    assert "interrupted; what was made is kept" in (tmp_path / "out").read_text()


def begun(parent, folder):
    """Whether a child has come as far as the stage's own processes."""
    assert state(parent) in ("PENDING", "RUNNING"), (folder / "out").read_text()
    return bool(list(folder.glob("store/policy/*.partial/rank0.log")))


def jobs_beside(parent):
    told = subprocess.run(["squeue", "--noheader", "--format=%i"], capture_output=True, text=True, check=True)
    return [job for job in told.stdout.split() if job != parent]
