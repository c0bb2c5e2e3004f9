"""What is true of every launcher, then what is true of processes on this machine."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from alpacafarm.errors import NeedsLabels, SpecError, StageError
from alpacafarm.spec.cluster import ClusterSpec
from launchers import failure, load, local, ports, task
from launchers.inline import Inline
from launchers.local import Local

HERE = Path(__file__).parent
CLUSTER = ClusterSpec.model_validate(
    {
        "name": "test",
        "launcher": "launchers.local:Local",
        "engine": "plain",
        "processes": 1,
        "micro_batch": 1,
        "generation_batch": 1,
        "threads": None,
        "gradient_checkpointing": False,
        "checkpoint_every_s": 1.0,
        "rendezvous_timeout_s": 1.0,
        "zero": {
            "stage": 0,
            "offload": {"optimizer": "none", "parameters": "none", "nvme_path": None},
            "persistence_threshold": 0,
        },
    }
)
ADAPTERS = {
    "inline": lambda: Inline(CLUSTER, worker="launched"),
    "local": lambda: Local(CLUSTER, 1, worker="launched"),
    "local, own process": lambda: Local(CLUSTER, 1, worker="launched", subprocesses=True),
    "local, two processes": lambda: Local(CLUSTER, 2, worker="launched"),
}


@pytest.fixture(autouse=True)
def _worker_is_found(monkeypatch):
    monkeypatch.syspath_prepend(str(HERE))


@pytest.fixture
def stage_folder(tmp_path):
    """Makes a stage's folder; keywords `rank0`, `rank1` say what those ranks do."""

    def make(name="sft", *, uses_devices=True, rank0=None, rank1=None):
        folder = tmp_path / "with space é" / f"{name}.partial"
        folder.mkdir(parents=True)
        params = {"0": rank0 or {}, "1": rank1 or {}}
        told = {"name": name, "uses_devices": uses_devices, "params": params}
        (folder / "stage.json").write_text(json.dumps(told))
        return folder

    return make


@pytest.fixture(params=ADAPTERS)
def launcher(request):
    return ADAPTERS[request.param]()


@pytest.fixture
def two():
    return ADAPTERS["local, two processes"]()


def run(launcher, folder):
    launcher.wait([launcher.submit(folder, [])])


def saw(folder, rank=0):
    return json.loads((folder / f"saw{rank}.json").read_text())


def test_a_stage_runs_after_what_it_is_submitted_after_and_once(launcher, stage_folder):
    first, second = stage_folder("first"), stage_folder("second")
    before = launcher.submit(first, [])
    after = launcher.submit(second, [before])
    launcher.wait([after])
    assert saw(first)["time"] < saw(second)["time"]
    told = saw(first)
    launcher.wait([before, after])
    assert saw(first) == told


def test_an_error_of_ours_keeps_its_class_message_and_exit_code(launcher, stage_folder, monkeypatch):
    monkeypatch.setattr(local, "LAST_WORDS_S", 60.0)
    folder = stage_folder(rank0={"ask": "label the pairs in here"}, rank1={"ask": "label the pairs in here"})
    with pytest.raises(NeedsLabels, match=r"^label the pairs in here$") as caught:
        run(launcher, folder)
    assert caught.value.exit_code == 3


def test_another_failure_names_stage_folder_and_log_and_the_log_has_the_traceback(launcher, stage_folder):
    folder = stage_folder(rank0={"fail": "no luck"})
    with pytest.raises(StageError, match="stage sft failed") as caught:
        run(launcher, folder)
    assert str(folder) in str(caught.value)
    assert str(folder / "rank0.log") in str(caught.value)
    assert "no luck" in str(caught.value)
    assert "RuntimeError: no luck" in (folder / "rank0.log").read_text()


def test_a_failed_stage_runs_when_launched_again(launcher, stage_folder):
    folder = stage_folder(rank0={"ask": "something"})
    with pytest.raises(NeedsLabels):
        run(launcher, folder)
    (folder / "stage.json").write_text(json.dumps({"name": "sft", "uses_devices": True, "params": {}}))
    run(launcher, folder)


def test_the_error_of_an_earlier_launch_is_not_told_again(two, stage_folder):
    folder = stage_folder(rank0={"exit": 9})
    (folder / "error.json").write_text(json.dumps({"type": "NeedsLabels", "message": "old"}))
    with pytest.raises(StageError, match="exited with code 9"):
        run(two, folder)


@pytest.mark.parametrize("name", ["inline", "local"])
def test_one_process_is_this_one(name, stage_folder):
    run(ADAPTERS[name](), folder := stage_folder())
    assert saw(folder)["pid"] == os.getpid()


def test_stages_that_only_move_rows_run_once_and_here(two, stage_folder):
    run(two, folder := stage_folder(uses_devices=False))
    assert saw(folder)["pid"] == os.getpid()
    assert not (folder / "saw1.json").exists()


def test_every_rank_knows_its_place(two, stage_folder):
    run(two, folder := stage_folder())
    ranks = [saw(folder, rank) for rank in (0, 1)]
    assert [(r["RANK"], r["LOCAL_RANK"]) for r in ranks] == [("0", "0"), ("1", "1")]
    shared = {(r["WORLD_SIZE"], r["LOCAL_WORLD_SIZE"], r["MASTER_ADDR"]) for r in ranks}
    assert shared == {("2", "2", "127.0.0.1")}
    assert len({r["MASTER_PORT"] for r in ranks}) == 1
    assert len({r["pid"] for r in ranks} | {os.getpid()}) == 3


@pytest.mark.parametrize(("outside", "threads", "inside"), [("7", 3, "7"), (None, 3, "3"), (None, None, "4")])
def test_threads_are_shared_out_unless_said_otherwise(stage_folder, monkeypatch, outside, threads, inside):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if outside:
        monkeypatch.setenv("OMP_NUM_THREADS", outside)
    launcher = Local(CLUSTER.model_copy(update={"threads": threads}), 2, worker="launched")
    run(launcher, folder := stage_folder())
    assert saw(folder, 1)["OMP_NUM_THREADS"] == inside


def test_when_a_rank_fails_the_others_end_and_the_message_has_its_last_lines(two, stage_folder, tmp_path):
    ready, ended = str(tmp_path / "ready"), tmp_path / "ended"
    rank0 = {"mark_on_sigterm": str(ended), "mark": ready, "sleep": 600}
    folder = stage_folder(rank0=rank0, rank1={"after": ready, "say": 50, "exit": 7})
    with pytest.raises(StageError, match=r"stage sft failed: rank 1 of 2 exited with code 7") as caught:
        run(two, folder)
    assert str(folder / "rank1.log") in str(caught.value)
    tail = [line.strip() for line in str(caught.value).splitlines()[-failure.TAIL_LINES :]]
    assert tail == [f"line {number}" for number in range(30, 50)]
    assert "line 29" not in str(caught.value)
    assert ended.exists()  # it had a chance to end well
    assert not alive(saw(folder, 0)["pid"])


def test_a_rank_that_a_signal_killed_is_said_to_be(two, stage_folder):
    folder = stage_folder(rank0={"signal": "SIGKILL"}, rank1={"sleep": 60})
    with pytest.raises(StageError, match="rank 0 of 2 was killed by SIGKILL"):
        run(two, folder)


def test_a_rank_that_ignores_sigterm_is_killed(two, stage_folder, monkeypatch, tmp_path):
    monkeypatch.setattr(local, "GRACE_S", 0.3)
    ready = str(tmp_path / "ready")
    rank1 = {"ignore_sigterm": None, "mark": ready, "sleep": 600}
    folder = stage_folder(rank0={"after": ready, "exit": 1}, rank1=rank1)
    began = time.monotonic()
    with pytest.raises(StageError):
        run(two, folder)
    assert time.monotonic() - began < 300  # it was not slept to its end
    assert not alive(saw(folder, 1)["pid"])


def test_rank_0_may_speak_when_another_rank_is_the_first_to_end(two, stage_folder, monkeypatch):
    monkeypatch.setattr(local, "LAST_WORDS_S", 60.0)
    folder = stage_folder(rank0={"sleep": 0.5, "ask": "labels, please"}, rank1={"exit": 3})
    with pytest.raises(NeedsLabels, match="labels, please"):
        run(two, folder)


def test_progress_of_rank_0_reaches_the_console_and_all_else_its_log(two, stage_folder, capfd):
    folder = stage_folder(rank0={"say": 2, "progress": 5}, rank1={"progress": 5})
    run(two, folder)
    assert capfd.readouterr().err == "sft 5/5\n"
    assert (folder / "rank0.log").read_text() == "line 0\nline 1\n"


def test_launching_works_from_a_thread(two, stage_folder):
    folder = stage_folder()
    thread = threading.Thread(target=run, args=(two, folder))
    thread.start()
    thread.join()
    assert saw(folder, 1)["RANK"] == "1"


def test_cancel_ends_what_runs_in_threads_and_nothing_begins_after_it(two, stage_folder, monkeypatch):
    monkeypatch.setattr(local, "GRACE_S", 0.3)
    rank = {"ignore_sigterm": None, "say": 1, "sleep": 60}
    running, late = stage_folder("running", rank0=rank, rank1=rank), stage_folder("late")
    ended = {}

    def launch(folder):
        try:
            run(two, folder)
        except StageError as error:
            ended[folder] = str(error)

    threads = [threading.Thread(target=launch, args=(folder,)) for folder in (running, late)]
    threads[0].start()
    eventually(lambda: all((running / f"rank{rank}.log").exists() for rank in (0, 1)))
    eventually(lambda: all("line 0" in (running / f"rank{rank}.log").read_text() for rank in (0, 1)))
    two.cancel()
    threads[1].start()
    for thread in threads:
        thread.join(60)
    assert "was killed by SIGKILL" in ended[running]
    assert not any(alive(saw(running, rank)["pid"]) for rank in (0, 1))
    assert ended[late] == "stage late was cancelled"


@pytest.fixture
def launched(stage_folder):
    """A process whose two ranks are asleep, and what they ran in."""
    folder = stage_folder(rank0={"sleep": 600}, rank1={"sleep": 600})
    command = [sys.executable, str(HERE / "launching.py"), str(folder), CLUSTER.model_dump_json()]
    path = os.pathsep.join([str(HERE.parents[1]), str(HERE)])
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path})
    eventually(lambda: all((folder / f"saw{rank}.json").exists() for rank in (0, 1)))
    yield process, folder
    process.kill()
    process.wait()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL", "SIGHUP"])
def test_ranks_end_with_their_launcher_however_it_ends(launched, name):
    process, folder = launched
    process.send_signal(signal.Signals[name])
    code = process.wait(timeout=60)
    assert code == (130 if name in ("SIGINT", "SIGTERM") else -signal.Signals[name])
    eventually(lambda: not any(alive(saw(folder, rank)["pid"]) for rank in (0, 1)))


def test_a_new_launch_waits_for_the_ranks_of_a_killed_one(launched, two):
    process, folder = launched
    old = [saw(folder, rank)["pid"] for rank in (0, 1)]
    process.kill()
    process.wait()
    (folder / "stage.json").write_text(json.dumps({"name": "sft", "uses_devices": True, "params": {}}))
    run(two, folder)
    assert not any(alive(pid) for pid in old)


def test_a_launch_beside_living_ranks_is_refused(launched, two, monkeypatch):
    monkeypatch.setattr(local, "GRACE_S", 0.1)
    _, folder = launched
    with pytest.raises(StageError, match=r"processes of an earlier run still work in .*; end them"):
        run(two, folder)


def alive(pid):
    """Zombies, whose parent has not asked for them yet, are dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_launchers_load_by_dotted_path():
    assert load("launchers.local:Local") is Local


@pytest.mark.parametrize("dotted", ["launchers.local:Nowhere", "nowhere:Local", "launchers.local", ""])
def test_a_launcher_that_is_not_there_is_the_users_error(dotted):
    with pytest.raises(SpecError, match=r"cluster.launcher=.* cannot be loaded .* launchers.local:Local"):
        load(dotted)


@pytest.mark.parametrize(("answer", "waits"), [("exit 0", True), ("exit 1", False), (None, False)])
def test_a_job_that_cannot_be_requeued_ends_and_one_that_can_waits_for_its_end(
    tmp_path, monkeypatch, answer, waits
):
    if answer:
        scontrol = tmp_path / "scontrol"
        scontrol.write_text(f'#!/bin/sh\n[ "$*" = "requeue 7" ] && {answer}')
        scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin" if answer else str(tmp_path))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    slept = []
    monkeypatch.setattr("launchers.task.time.sleep", slept.append)
    task.requeue(0)
    task.requeue(1)
    assert slept.count(task.REQUEUE_S) == 1 + waits  # subprocess sleeps as well


def test_slurm_without_its_commands_is_refused(monkeypatch, tmp_path):
    asked = CLUSTER.model_copy(update={"slurm": True, "launcher": "launchers.slurm:Slurm"})
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        SpecError, match=r"^cluster\.launcher=launchers\.slurm:Slurm: needs sbatch, .*set cluster="
    ):
        load("launchers.slurm:Slurm")(asked, 1)


def test_ranks_meet_below_the_ports_that_the_kernel_hands_out():
    ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with socket.socket() as server:
        server.bind(("127.0.0.1", port := ports.free_port()))
    assert all(ports.FIRST <= p < ephemeral for p in (port, *map(ports.agreed_port, range(0, 10**6, 997))))
