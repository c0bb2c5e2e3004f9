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


@pytest.mark.parametrize(
    ("asked", "with_gpus", "without"),
    [
        ("method=ppo eval/judge=api", {"compare"}, {"judge outputs"}),  # for its KL and its proxy reward
        ("method=dpo eval/judge=alpaca_eval", {"compare"}, {"judge outputs"}),  # for its KL
        ("method=dpo eval/judge=api eval.sampling.top_p=0.9", set(), {"judge outputs", "compare"}),
        ("method=best_of_n eval/judge=api", {"compare"}, {"judge outputs"}),  # for its proxy reward
        ("method=sft eval/judge=api", set(), {"judge outputs", "compare"}),
        ("method=api_baseline eval/judge=api", set(), {"judge outputs", "compare"}),
        ("method=api_baseline", set(), {"compare"}),  # the world's annotators answer at once
        ("method=api_baseline eval/judge=reward", {"compare"}, set()),
        ("method=ppo", {"compare"}, set()),
    ],
)
def test_nobody_holds_a_gpu_while_a_judge_is_asked_elsewhere(job, asked, with_gpus, without):
    made = job(*asked.split(), "cluster=slurm")
    names = {True: set(), False: set()}
    for stage in made.plan.stages:
        names[stage.uses_devices].add(stage.name)
    judging = {"judge outputs", "compare"}
    assert (names[True] & judging, names[False] & judging) == (with_gpus, without)


def test_another_cluster_asks_slurm_for_nothing(job):
    made = job("method=ppo")
    assert slurm_lines(made.spec.cluster.slurm, made.plan.stages) == []


def test_processes_are_the_tasks(job):
    with pytest.raises(SpecError, match=r"^cluster\.processes=4: must be cluster\.slurm\.nodes=2 times"):
        job("method=ppo", "cluster=slurm_2node", "cluster.processes=4")
