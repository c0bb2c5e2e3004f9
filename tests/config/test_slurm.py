"""What a plan says that SLURM will be asked for."""

import pytest

from alpacafarm.errors import SpecError
from alpacafarm.report.status import slurm_lines


def test_stages_that_need_no_gpu_ask_for_none(job):
    made = job(
        "method=ppo", "cluster=slurm_2node", "cluster.slurm.partition=a100", "cluster.slurm.minutes=90"
    )
    assert made.world == 2
    training, light = slurm_lines(made.spec.cluster.slurm, made.plan.stages)
    asked, _, names = training.partition(": ")
    assert asked == (
        "sbatch --partition=a100 --nodes=2 --ntasks-per-node=1 --gpus-per-node=1 --cpus-per-task=8 "
        "--mem=65536M --time=90"
    )
    assert {"sft", "rm", "ppo", "compare"} <= set(names.split(", "))
    asked, _, names = light.partition(": ")
    assert asked == "sbatch --nodes=1 --ntasks-per-node=1 --cpus-per-task=2 --mem=16384M --time=1440"
    assert "annotate" in names.split(", ")


def test_another_cluster_asks_slurm_for_nothing(job):
    made = job("method=ppo")
    assert slurm_lines(made.spec.cluster.slurm, made.plan.stages) == []


def test_processes_are_the_tasks(job):
    with pytest.raises(SpecError, match=r"^cluster\.processes=4: must be cluster\.slurm\.nodes=2 times"):
        job("method=ppo", "cluster=slurm_2node", "cluster.processes=4")
