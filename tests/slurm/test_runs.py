"""Whole runs over two nodes of a real SLURM."""

import pytest

from tests.slurm import whole


@pytest.mark.parametrize("zero", [2, 3])
@pytest.mark.usefixtures("home")
def test_two_nodes_train_as_two_processes_of_this_machine(upstream, tmp_path, zero):
    here, nodes = (
        whole.started(tmp_path / name, upstream, *cluster, f"cluster.zero.stage={zero}", measured=measured)
        for name, cluster, measured in (
            ("here", ("cluster=local_2proc",), False),
            ("nodes", whole.NODES, zero == 2),  # evaluation does not depend on it
        )
    )
    here.finish()
    nodes.finish()
    for there, steps in zip(nodes.log(), here.log(), strict=True):
        assert there.keys() == steps.keys()
        for name in ("loss", "kl", "reward/mean"):
            assert there[name] == pytest.approx(steps[name], abs=5e-6)
    if zero == 2:
        assert nodes.result()["eval"] == here.evaluated()["eval"]
        assert nodes.result()["eval"]["n_total"] > 0
