"""Killed anywhere and started again, a run ends with the same bits; two runs at once make each stage once."""

import json
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.runs import farm

# Every process is a fresh one that has imported the slow libraries and done nothing with them.
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "transformers.models.llama.modeling_llama",
        "transformers.loss.loss_utils",
        "alpacafarm.engine.plain",
        "alpacafarm.models.heads",
        "alpacafarm.models.load",
        "alpacafarm.rollout.hf",
        "alpacafarm.training.rollouts",
        "tests.runs.farm",
    ]
)
TIMEOUT_S = 300
PLAIN = ("cluster.engine=plain", "cluster.processes=1", "cluster.checkpoint_every_s=1e-6")


def ended(process: BaseProcess) -> int | None:
    process.join(TIMEOUT_S)
    assert not process.is_alive()
    return process.exitcode


def killed_until_done(home: Path, asked: list[str]) -> int:
    """How often the run in `home / "run"` had to be started again."""
    kills = 0
    while True:
        arguments = (home / "run", asked, home / "survived")
        process = SERVER.Process(target=farm.perform_until, args=arguments)
        process.start()
        code = ended(process)
        if code == 0:
            return kills
        assert code == -signal.SIGKILL
        kills += 1
        assert kills < 50


def test_killed_at_every_point_ends_with_the_bits_of_an_undisturbed_run(perform, tmp_path):
    undisturbed = perform("ppo", "method.steps=4")
    asked = [*farm.tiny("ppo", *PLAIN, f"store={tmp_path / 'store'}"), "method.steps=4"]
    kills = killed_until_done(tmp_path, asked)
    points = (tmp_path / "survived").read_text().splitlines()
    trained, sampled = ["base", "sft", "rm", "ppo"], ["sample pairs", "decode policy", "decode sft"]
    assert [p for p in points if p.endswith("checkpoint")] == [f"{name}: checkpoint" for name in trained]
    assert {f"{name}: publish" for name in undisturbed.keys} <= set(points)
    assert len([p for p in points if p.endswith("shard")]) >= len(sampled)
    assert kills == len(points)
    killed = farm.read(tmp_path / "run")
    assert killed.keys == undisturbed.keys
    assert killed.hashes() == undisturbed.hashes()
    for part in ("eval", "vs_sft", "gold", "kl_to_sft", "reward_model_score"):
        assert killed.result[part] == undisturbed.result[part]


@pytest.mark.parametrize("method", sorted({*farm.METHOD, *farm.PAIRWISE} - {"ppo", "sft", "rm"}))
def test_every_method_killed_goes_on_to_the_same_bits(perform, tmp_path, method):
    """What the method builds on is there; its own stages are killed at each of their points."""
    undisturbed = perform(method, "eval=none")
    shared = set(perform("ppo").keys.values())
    for stage in undisturbed.result["stages"]:
        if stage["key"] in shared:
            artifact = Path(stage["folder"])
            place = tmp_path / "store" / artifact.parent.name / artifact.name
            shutil.copytree(artifact, place, copy_function=os.link)
    own = {name for name, key in undisturbed.keys.items() if key not in shared}
    asked = [*farm.tiny(method, *PLAIN, f"store={tmp_path / 'store'}"), "eval=none"]
    kills = killed_until_done(tmp_path, asked)
    points = (tmp_path / "survived").read_text().splitlines()
    assert {f"{name}: publish" for name in own} <= set(points)
    assert kills == len(points)
    killed = farm.read(tmp_path / "run")
    assert set(killed.states.values()) == {"reused", "resumed"}
    assert killed.hashes() == undisturbed.hashes()


@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_which_goes_on_to_the_same_bits(on_two_processes, tmp_path, rank):
    asked = farm.tiny("sft", "cluster=local_2proc", f"store={tmp_path / 'store'}", "eval=none", farm.LONG)
    asked += ["cluster.checkpoint_every_s=1e-6"]
    told = killed_after_a_checkpoint(tmp_path, asked, rank)
    assert re.search(rf"stage (base|sft) failed: rank {rank} of 2 was killed by SIGKILL", told)
    assert re.search(r"folder: .*\.partial\n  log: .*rank\d\.log", told)
    again = farm.by_command(tmp_path / "run", asked)
    assert "resumed" in again.states.values()
    assert again.hashes() == on_two_processes.hashes()


def test_what_two_processes_began_one_goes_on_with_and_says_so(on_two_processes, tmp_path):
    asked = farm.tiny("sft", f"store={tmp_path / 'store'}", "eval=none", farm.LONG)
    asked += ["cluster.checkpoint_every_s=1e-6"]
    killed_after_a_checkpoint(tmp_path, [*asked, "cluster=local_2proc"], rank=1)
    again = farm.by_command(tmp_path / "run", [*asked, "cluster=local", "cluster.processes=1"])
    assert again.keys == on_two_processes.keys
    (moved,) = (stage for stage in again.result["stages"] if stage["went_on"])
    assert moved["state"] == "resumed"
    (how,) = moved["went_on"]
    assert re.fullmatch(r"step \d+, saved on 2 ranks with ZeRO-2, on 1 rank with ZeRO-0", how)
    assert how in (again.folder / "report.html").read_text()
    assert f"went on from {how}" in (again.folder / "run.log").read_text()
    for name in ("base", "sft"):
        one, two = (losses(ran.artifact(name)) for ran in (again, on_two_processes))
        assert one == pytest.approx(two, rel=1e-4)


def killed_after_a_checkpoint(home: Path, asked: list[str], rank: int) -> str:
    """What the command said when a rank of its two was killed."""
    command = farm.command(*asked, f"hydra.run.dir={home / 'run'}")
    process = subprocess.Popen(command, cwd=home, stderr=subprocess.PIPE, text=True)
    wait_for(home / "store", "policy/*.partial/scratch/latest.json")
    os.kill(worker(home, rank), signal.SIGKILL)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1, told
    return told


def losses(artifact: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (artifact / "log.jsonl").read_text().splitlines()]


def test_two_runs_at_once_make_each_stage_once(tmp_path):
    asked = farm.tiny("best_of_n", *PLAIN, f"store={tmp_path / 'store'}")
    folders = [tmp_path / "one", tmp_path / "two"]
    processes = [SERVER.Process(target=farm.perform, args=(folder, asked)) for folder in folders]
    for process in processes:
        process.start()
    assert [ended(process) for process in processes] == [0, 0]
    one, two = map(farm.read, folders)
    assert one.keys == two.keys
    for name in one.keys:
        assert sorted([one.states[name], two.states[name]]) == ["made", "reused"]
    assert one.result["eval"] == two.result["eval"]


@pytest.mark.parametrize(
    ("cluster", "number"),
    [("local", signal.SIGTERM), ("local_2proc", signal.SIGTERM), ("local_2proc", signal.SIGINT)],
)
def test_interrupted_command_says_so_and_leaves_no_process_behind(tmp_path, cluster, number):
    asked = farm.tiny("sft", f"cluster={cluster}", f"store={tmp_path / 'store'}")
    asked += ["eval=none", "upstream.base.epochs=400", f"hydra.run.dir={tmp_path / 'run'}"]
    process = subprocess.Popen(
        farm.command(*asked), cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = wait_for(tmp_path / "store", "policy/*.partial/out/log.jsonl")
    process.send_signal(number)
    _, told = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 130, told
    assert "the same command goes on" in told
    assert "Traceback" not in told
    assert not [pid for pid in os.listdir("/proc") if pid.isdigit() and mentions(pid, str(tmp_path))]
    assert log.exists()


def wait_for(root: Path, pattern: str) -> Path:
    """A file that has been written to."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        found = [path for path in root.glob(pattern) if path.stat().st_size]
        if found:
            return found[0]
        time.sleep(0.05)
    raise AssertionError(f"nothing at {root / pattern}")


def worker(home: Path, rank: int) -> int:
    """The process id of a rank that works below `home`."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is not ours
            continue
        if mentions(folder.name, str(home)) and f"RANK={rank}".encode() in environment:
            return int(folder.name)
    raise AssertionError(f"no rank {rank} works in {home}")


def mentions(pid: str, text: str) -> bool:
    try:
        return text in Path("/proc", pid, "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return False
