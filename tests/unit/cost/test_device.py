"""Where the number of the memory comes from."""

import os

import pytest

from alpacafarm.cost.device import GIB, available, free_bytes


def cluster(job, *overrides: str):
    return job("method=sft", *overrides).spec.cluster


@pytest.fixture
def job():
    from alpacafarm import run

    def composed(*overrides: str) -> run.Job:
        (found,) = run.check(["force=true", *overrides])
        assert isinstance(found, run.Job)
        return found

    return composed


def test_the_key_counts_before_all_that_is_found(job):
    room = available(cluster(job, "cluster.device_memory_gb=1.5"), 1)
    assert room is not None
    assert (room.size, room.source) == (1.5 * GIB, "cluster.device_memory_gb=1.5")


def test_slurm_without_gpus_shares_its_memory_among_the_tasks_of_a_node(job):
    settings = ("cluster=slurm_2node", "cluster.device_memory_gb=null", "cluster.slurm.tasks_per_node=4")
    room = available(
        cluster(job, *settings, "cluster.slurm.gpus_per_node=0", "cluster.slurm.memory_gb=10"), 8
    )
    assert room is not None
    assert room.size == 2.5 * GIB
    assert available(cluster(job, *settings), 8) is None  # of its GPUs nobody here knows
    no_limit = (*settings, "cluster.slurm.gpus_per_node=0", "cluster.slurm.memory_gb=null")
    assert available(cluster(job, *no_limit), 8) is None


def test_processes_of_this_machine_share_what_is_free(job, monkeypatch):
    monkeypatch.setattr("alpacafarm.cost.device.free_bytes", lambda: 12 * GIB)
    monkeypatch.setattr("alpacafarm.cost.device.visible_gpus", list)
    room = available(cluster(job, "cluster=local_2proc"), 2)
    assert room is not None
    assert room.size == 6 * GIB
    assert room.source == "what is free on this machine for 2 processes"


@pytest.mark.skipif(not os.path.exists("/proc/meminfo"), reason="only Linux says it")
def test_what_is_free_is_some_of_what_there_is():
    free = free_bytes()
    assert free is not None
    assert 0 < free <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
