"""Two sites on one machine, as two processes of a test suite have them."""

import os
import subprocess
import sys

from tests.slurm import site


def test_sites_that_start_together_do_not_meet(home, tmp_path):
    others = [tmp_path / "one", tmp_path / "two"]
    before = site.HOSTS.read_text()
    command = [sys.executable, "-m", "tests.slurm.site", "start"]
    starts = [subprocess.Popen([*command, str(other)], stdout=subprocess.DEVNULL) for other in others]
    try:
        assert [start.wait() for start in starts] == [0, 0]
        for place in (home, *others):
            assert where_a_job_runs(place) == site.nodes(place)
        names = {name for place in (home, *others) for name in site.nodes(place)}
        assert len(names) == 3 * site.NODES
    finally:
        for other in others:
            site.stop(other)
    assert set(before.splitlines()) <= set(site.HOSTS.read_text().splitlines())
    assert not any(name in site.HOSTS.read_text() for name in (str(other) for other in others))


def where_a_job_runs(place):
    told = subprocess.run(
        ["srun", "-N2", "--mem=10", "sh", "-c", "echo $SLURMD_NODENAME"],
        env=os.environ | {"SLURM_CONF": str(place / "slurm.conf")},
        capture_output=True,
        text=True,
        check=True,
    )
    return sorted(told.stdout.split())
