"""Stage folders on a real SLURM: what becomes of them, however their jobs end."""

import json
import subprocess
import threading
from pathlib import Path

import pytest
import submitit

from alpacafarm.artifacts.manifest import OUTCOME
from alpacafarm.errors import NeedsLabels, SpecError, StageError
from alpacafarm.spec.cluster import SlurmSpec
from launchers import slurm as launcher_module
from launchers import task
from launchers.slurm import Slurm, resources
from tests.contract.test_launchers import CLUSTER
from tests.slurm import site

DEEDS = Path(__file__).parents[1] / "contract"
SPEC = SlurmSpec.model_validate(
    {
        "nodes": 2,
        "tasks_per_node": 1,
        "gpus_per_node": 0,
        "cpus_per_task": 1,
        "memory_gb": 1,
        "minutes": 10,
        "partition": "test",
        "account": None,
        "qos": None,
        "constraint": None,
        "setup": [],
        "srun": [],
        "light": {"partition": None, "cpus_per_task": 1, "memory_gb": 1, "minutes": 5},
        "signal_s": 60,
        "tries": 3,
        "poll_s": 0.2,
    }
)


def made(**changes: object) -> Slurm:
    spec = SPEC.model_copy(update=changes)
    return Slurm(CLUSTER.model_copy(update={"slurm": spec}), spec.tasks, worker="launched")


@pytest.fixture(autouse=True)
def _deeds_are_found(monkeypatch, home):
    monkeypatch.setenv("PYTHONPATH", f"{DEEDS}:{DEEDS.parents[1]}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def stage_folder(tmp_path):
    def make(name="sft", *, uses_devices=True, **ranks):
        folder = tmp_path / "with space é" / f"{name}.partial"
        folder.mkdir(parents=True)
        params = {rank.removeprefix("rank"): deeds for rank, deeds in ranks.items()}
        told = {"name": name, "uses_devices": uses_devices, "params": params}
        (folder / "stage.json").write_text(json.dumps(told))
        return folder

    return make


def run(launcher, folder):
    launcher.wait([launcher.submit(folder, [])])


def saw(folder, rank):
    return json.loads((folder / f"saw{rank}.json").read_text())


def queue():
    return subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout


def test_every_process_knows_its_rank_and_where_the_ranks_meet(stage_folder, home):
    folder = stage_folder()
    run(made(), folder)
    first, second = saw(folder, 0), saw(folder, 1)
    assert (first["RANK"], second["RANK"]) == ("0", "1")
    assert (first["LOCAL_RANK"], second["LOCAL_RANK"]) == ("0", "0")
    assert first["WORLD_SIZE"] == second["WORLD_SIZE"] == "2"
    assert first["MASTER_ADDR"] == second["MASTER_ADDR"] == site.nodes(home)[0]
    assert first["MASTER_PORT"] == second["MASTER_PORT"]


def test_a_stage_without_devices_is_one_process_and_asks_for_no_gpu(stage_folder):
    folder = stage_folder(uses_devices=False)
    run(made(gpus_per_node=2), folder)
    assert saw(folder, 0)["WORLD_SIZE"] == "1"
    light = resources(SPEC.model_copy(update={"gpus_per_node": 8}), "annotate", uses_devices=False)
    assert "gpus_per_node" not in light
    assert (light["nodes"], light["time"], light["mem"]) == (1, 5, "1024M")


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_of_any_rank_ends_the_stage_at_once_with_its_log(stage_folder, rank):
    folder = stage_folder(**{f"rank{rank}": {"fail": "no luck"}, f"rank{1 - rank}": {"sleep": 300}})
    with pytest.raises(StageError, match=r"stage sft failed: RuntimeError: no luck\n  log: .*rank") as caught:
        run(made(), folder)
    assert f"rank{rank}.log" in str(caught.value)
    assert "Traceback" in (folder / f"rank{rank}.log").read_text()
    site.until(lambda: not queue(), "the other rank goes on")


def test_an_error_of_ours_keeps_its_class_message_and_exit_code(stage_folder):
    folder = stage_folder(rank0={"ask": "label the pairs in here"}, rank1={"ask": "label the pairs in here"})
    with pytest.raises(NeedsLabels, match=r"^label the pairs in here$"):
        run(made(), folder)


def test_a_killed_process_is_tried_again_and_then_told(stage_folder, tmp_path):
    folder = stage_folder(rank1={"signal": "SIGKILL"})
    launcher = made(tries=2)
    with pytest.raises(StageError, match=r"ended as FAILED \(try 2 of cluster\.slurm\.tries=2\)"):
        run(launcher, folder)


def test_a_process_that_lost_its_peer_leaves_the_word_to_who_ended_it(stage_folder):
    folder = stage_folder(rank0={"lose_peer": None}, rank1={"sleep": 30, "signal": "SIGKILL"})
    with pytest.raises(StageError, match=r"ended as FAILED \(try 2 of cluster\.slurm\.tries=2\)"):
        run(made(tries=2), folder)
    assert len((folder / "rank0.log").read_text().splitlines()) == 2  # one of each try


def test_a_job_in_the_queue_is_found_whatever_was_noted(stage_folder):
    """A command may be killed between sbatch and its note, which then names the job before."""
    folder = stage_folder(rank0={"sleep": 300}, rank1={"sleep": 300})
    first = made()
    number = first.submit(folder, []).number
    try:
        (folder / "slurm.json").write_text('{"job": "99999999"}')
        assert made().submit(folder, []).number == number
    finally:
        first.cancel()


def test_a_job_that_was_submitted_by_an_sbatch_that_failed_is_cancelled(stage_folder, monkeypatch):
    submit = submitit.SlurmExecutor.submit

    def interrupted(executor, *asked):
        submit(executor, *asked)
        raise RuntimeError("Socket timed out on send/recv operation")

    monkeypatch.setattr(submitit.SlurmExecutor, "submit", interrupted)
    with pytest.raises(StageError, match="refused by sbatch: Socket timed out"):
        made().submit(stage_folder(rank0={"sleep": 300}, rank1={"sleep": 300}), [])
    site.until(lambda: not queue(), "the job goes on")


@pytest.mark.parametrize("is_known", [True, False])
def test_a_job_that_ended_well_while_nobody_looked_is_not_run_again(stage_folder, monkeypatch, is_known):
    folder = stage_folder()
    first = made()
    job = first.submit(folder, [])
    first.wait([job])
    told = saw(folder, 0)
    (folder / OUTCOME).write_text("{}")  # what a worker's last act is
    if not is_known:
        monkeypatch.setattr(launcher_module, "state", lambda number: "GONE")
    again = made()
    assert again.submit(folder, []).number == job.number
    again.wait([job])
    assert saw(folder, 0) == told


def test_a_process_of_an_earlier_try_ends_itself(stage_folder):
    """As on a node that SLURM has lost sight of, while the stage goes on elsewhere."""
    folder = stage_folder(rank0={"sleep": 300}, rank1={"sleep": 300})
    launcher = made(tries=1)
    job = launcher.submit(folder, [])
    site.until(lambda: all((folder / f"saw{rank}.json").exists() for rank in (0, 1)), "no process begins")
    assert (folder / task.TRY).read_text() == f"{job.number}.0\n"
    (folder / task.TRY).write_text(f"{job.number}.1\n")
    with pytest.raises(StageError, match="ended as FAILED"):
        launcher.wait([job])
    told = "".join((folder / f"rank{rank}.log").read_text() for rank in (0, 1))
    assert f"try {job.number}.1 of the stage has begun: {job.number}.0 ends" in told


def test_an_error_of_ours_on_another_rank_alone_is_told(stage_folder):
    folder = stage_folder(rank0={"sleep": 300}, rank1={"ask": "label the pairs in here"})
    with pytest.raises(StageError, match=r"stage sft failed: rank 1 failed\n  log: .*rank1\.log"):
        run(made(), folder)


def test_where_no_process_has_begun_the_log_of_the_job_is_shown(stage_folder):
    folder = stage_folder()
    with pytest.raises(StageError, match=r"ends:\n(?s:.*)no module here"):
        run(made(setup=["echo no module here; exit 1"], tries=1), folder)


def test_a_refusal_of_sbatch_is_told_with_what_was_asked_for(stage_folder):
    folder = stage_folder()
    with pytest.raises(StageError, match=r"refused by sbatch: (?s:.*)nowhere(?s:.*)cluster\.slurm"):
        run(made(partition="nowhere"), folder)


def test_a_cancelled_job_is_told(stage_folder):
    folder = stage_folder(rank0={"sleep": 300})
    launcher = made()
    job = launcher.submit(folder, [])
    site.until(lambda: launcher_module.state(job.number) == "RUNNING", "does not run")
    subprocess.run(["scancel", job.number], check=True)
    with pytest.raises(StageError, match="ended as CANCELLED"):
        launcher.wait([job])


def test_the_end_of_the_command_cancels_its_jobs(stage_folder):
    folder = stage_folder(rank0={"sleep": 300})
    launcher = made()
    job = launcher.submit(folder, [])
    threading.Timer(1, launcher.cancel).start()
    with pytest.raises(StageError, match="was cancelled"):
        launcher.wait([job])
    site.until(lambda: not queue(), "the job goes on")


def test_a_job_that_is_submitted_while_the_command_ends_is_cancelled_too(stage_folder):
    folder = stage_folder(rank0={"sleep": 300})
    launcher = made()
    launcher.cancel()
    with pytest.raises(StageError, match="was cancelled"):
        run(launcher, folder)
    site.until(lambda: not queue(), "the job goes on")


@pytest.mark.parametrize("is_noted", [True, False])
def test_a_command_that_comes_back_finds_its_job(stage_folder, tmp_path, is_noted):
    mark = tmp_path / "go on"
    folder = stage_folder(rank0={"after": str(mark)})
    first = made().submit(folder, [])
    if not is_noted:  # it was killed before
        (folder / "slurm.json").unlink()
    launcher = made()
    second = launcher.submit(folder, [])
    assert second.number == first.number
    mark.touch()
    launcher.wait([second])


def test_a_requeued_job_is_waited_for_and_begins_without_the_words_of_the_try_before(stage_folder, tmp_path):
    mark = tmp_path / "go on"
    folder = stage_folder(rank0={"after": str(mark)})
    launcher = made()
    job = launcher.submit(folder, [])
    site.until(lambda: (folder / "saw0.json").exists() and (folder / "rank1.ok").exists(), "does not start")
    first = saw(folder, 0)["pid"]
    (folder / "error.json").write_text("{}")
    subprocess.run(["scontrol", "requeue", job.number], check=True)
    site.until(lambda: saw(folder, 0)["pid"] != first, "does not start again")
    assert not (folder / "error.json").exists()
    mark.touch()
    launcher.wait([job])


def test_it_needs_to_know_what_to_ask_for():
    with pytest.raises(SpecError, match=r"cluster\.slurm=null: launchers\.slurm needs"):
        Slurm(CLUSTER)
