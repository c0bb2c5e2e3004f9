"""Two sites on one machine, as two processes of a test suite have them."""

import os
import subprocess
import sys
from pathlib import Path

from tests.slurm import site


def test_sites_that_start_together_do_not_meet(home, tmp_path_factory):
    others = [tmp_path_factory.mktemp(name) for name in ("one", "two")]
    # Those of another test process may go meanwhile, with its site.
    before = {line for line in hosts() if site.MARK not in line or line.endswith(f" {home}")}
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
    assert before <= set(hosts())
    assert not any(line.endswith(f" {other}") for line in hosts() for other in others)


def hosts():
    return site.HOSTS.read_text().splitlines()


def test_a_site_that_stops_leaves_nothing_of_its_jobs(home, tmp_path_factory):
    place = tmp_path_factory.mktemp("stopped")
    site.start(place)
    try:
        on(place, "sbatch", "--mem=10", "--output=/dev/null", "--wrap", "sleep 300")
        site.until(lambda: any("slurm_script" in command(pid) for pid in site.left(place)), "no job runs")
    finally:
        site.stop(place)
    site.until(lambda: not site.left(place), "the job goes on")


def command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def where_a_job_runs(place):
    return sorted(on(place, "srun", "-N2", "--mem=10", "sh", "-c", "echo $SLURMD_NODENAME").split())


def on(place, *command):
    environment = os.environ | {"SLURM_CONF": str(place / "slurm.conf")}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
