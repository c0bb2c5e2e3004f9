"""A run that does not fit is refused with overrides with which it fits."""

import re

import pytest

from alpacafarm import run
from alpacafarm.cost import fit
from alpacafarm.errors import SpecError

SEVEN_B = "model=llama-7b data=alpaca_farm"


def said_of(overrides: str) -> str:
    with pytest.raises(SpecError) as caught:
        run.check(overrides.split())
    return str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        "method=sft cluster.device_memory_gb=0.5 eval=none",
        "method=ppo cluster.device_memory_gb=0.49 eval=none",
        "method=rm cluster.device_memory_gb=0.47 cluster=local_2proc",
        f"method=ppo {SEVEN_B} cluster=slurm_8gpu",
        f"method=ppo {SEVEN_B} cluster=slurm_8gpu cluster.device_memory_gb=40",
        f"method=quark {SEVEN_B} cluster=slurm_2node cluster.device_memory_gb=76",
        f"method=ppo {SEVEN_B} cluster=slurm cluster.device_memory_gb=24 eval=none",
        f"method=dpo {SEVEN_B} cluster=slurm_8gpu cluster.device_memory_gb=15",
    ],
)
def test_the_suggestion_is_accepted(overrides):
    told = said_of(overrides)
    found = re.search(
        r"; set (cluster\.\S+=\S+(?: cluster\.\S+=\S+)*), with which the most is ([\d.]+) GiB", told
    )
    assert found is not None, told
    run.check([*overrides.split(), *found[1].split()])
    room = float(re.search(r"and ([\d.]+) GiB are there", told)[1])
    assert float(found[2]) <= room


def test_no_part_of_the_suggestion_can_be_left_out():
    overrides = f"method=ppo {SEVEN_B} cluster=slurm_8gpu"
    found = re.search(r"; set (.*), with which", said_of(overrides))[1].split()
    assert len(found) > 1
    for left_out in found:
        said_of(" ".join([overrides, *(part for part in found if part != left_out)]))


def test_force_runs_all_the_same():
    run.check(["method=sft", "cluster.device_memory_gb=0.1", "force=true"])


def test_what_is_given_is_not_made_and_not_checked(things):
    """The things' model says nothing of its shape; the world's own SFT stage would not fit."""
    small = "method=rm cluster.device_memory_gb=0.1 data=files data.preferences={pairs} feedback=human"
    run.check([*small.format(**things).split(), f"given.sft={things['model']}", "model=scratch"])


def test_memory_and_force_are_in_no_key(job):
    plain, other = job("method=sft"), job("method=sft", "cluster.device_memory_gb=7", "force=false")
    assert [s.key for s in plain.plan.stages] == [s.key for s in other.plan.stages]
    hub = ("method=sft", "model=qwen-0.5b", "data=alpaca_farm")
    told, untold = job(*hub), job(*hub, "model.shape=null")
    assert [s.key for s in told.plan.stages] == [s.key for s in untold.plan.stages]


def test_side_by_side_stages_share_the_memory_of_the_machine(job, monkeypatch):
    asked = job("method=sft", "cluster.processes=2")
    most = max(need.estimate.total for need in fit.needs(asked.spec, asked.plan.stages, 2))
    for free, count in ((7 * most, 3), (most, 1), (None, None)):
        monkeypatch.setattr(fit, "free_bytes", lambda free=free: free)
        assert fit.side_by_side(asked.spec, asked.plan.stages, 2) == count
    on_slurm = job("method=sft", "cluster=slurm")
    assert fit.side_by_side(on_slurm.spec, on_slurm.plan.stages, 1) is None
