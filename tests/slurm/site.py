"""A real SLURM on this machine: a controller and two node daemons from Debian's packages, with made-up GPUs.

    python -m tests.slurm.site install|start|stop FOLDER

Needs root. Without accounting, systemd or cgroups; `start` prints the SLURM_CONF to use. Any number of sites
run beside each other: each has ports, names of nodes and numbers of jobs of its own.
"""

import argparse
import fcntl
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TextIO

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
NODES = 2
GPUS = 2  # of a node: character devices that stand for them
HOSTS = Path("/etc/hosts")  # whose lock and lines keep sites apart
MARK = "# alpacafarm tests:"
# A site's slot gives its ports (below those of launchers.ports, where ranks meet) and its first job's number:
# the port where ranks meet follows from the job's number, modulo their number.
SLOTS, FIRST_PORT, SLOT_PORTS, SLOT_JOBS, JOBS = 120, 17000, 1 + NODES, 100, 12000
PATIENCE_S = 60
PATH_BYTES = 66  # of a site's folder: names of sockets below it may have 107

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={home}/run/munge.socket,cred_expire=10
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool.%n
SlurmctldPidFile={home}/run/slurmctld.pid
SlurmdPidFile={home}/run/slurmd.%n.pid
SlurmctldLogFile={home}/log/slurmctld.log
SlurmdLogFile={home}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SlurmdParameters=config_overrides
GresTypes=gpu
ReturnToService=2
KillWait=30
SlurmdTimeout=10
MinJobAge=600
FirstJobId={first_job}
SchedulerParameters=batch_sched_delay=0,bf_interval=2,sched_interval=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=20
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10 PreemptMode=OFF
"""


def missing() -> list[str]:
    """Programs that are not there, or what else speaks against starting it."""
    absent = [name for name in PROGRAMS if not shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin")]
    return absent if os.geteuid() == 0 else [*absent, "root"]


def install() -> None:
    """The packages, where a program is missing."""
    absent = missing()
    if not absent:
        return
    if os.geteuid() != 0:
        sys.exit(f"the tests of launchers/slurm.py need {', '.join(absent)}; run this as root")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", *command], env=environment, check=True, stdout=subprocess.DEVNULL)


def start(home: Path) -> Path:
    """Returns the configuration, once both nodes are idle."""
    conf = configure(home)
    environment = os.environ | {"SLURM_CONF": str(conf), "PATH": os.environ["PATH"] + ":/usr/sbin"}
    run, names = home / "run", nodes(home)
    daemons = [
        [
            "munged",
            "--force",
            f"--key-file={home}/munge/key",
            f"--socket={run}/munge.socket",
            f"--pid-file={run}/munged.pid",
            f"--log-file={home}/munge/log",
            f"--seed-file={home}/munge/seed",
        ],
        ["slurmctld", "-c"],
        *(["slurmd", "-N", node] for node in names),
    ]
    for daemon in daemons:
        subprocess.run(daemon, env=environment, check=True, stdout=subprocess.DEVNULL)
    until(lambda: idle(environment) == NODES, f"no idle nodes; logs are in {home}/log")
    return conf


def configure(home: Path) -> Path:
    """ValueError where sockets below `home` would have names that are too long."""
    if len(os.fsencode(home)) > PATH_BYTES:
        raise ValueError(f"{home}: must have at most {PATH_BYTES} bytes; take a folder higher up")
    for name in ("run", "log", "state", "munge", "dev"):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "munge").chmod(0o700)
    key = home / "munge" / "key"
    if not key.exists():
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    slot = claimed(home)
    ports = ports_of(slot)
    # Other numbers than those of a site before this one, whose jobs may have left files.
    first_job = int(time.time()) % 5000 * JOBS + slot * SLOT_JOBS + 1
    text = CONF.format(host=host, home=home, port=ports[0], first_job=first_job)
    devices = ["AutoDetect=off"]
    for port in ports[1:]:
        node = name_of(port)
        (home / f"spool.{node}").mkdir(exist_ok=True)
        text += (
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 "
            f"RealMemory=8000 Gres=gpu:{GPUS}\n"
        )
        devices.append(f"NodeName={node} Name=gpu File={home}/dev/{node}-gpu[0-{GPUS - 1}]")
        for gpu in range(GPUS):
            device = home / "dev" / f"{node}-gpu{gpu}"
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))
    (home / "gres.conf").write_text("\n".join(devices) + "\n")
    conf = home / "slurm.conf"
    conf.write_text(text)
    return conf


def nodes(home: Path) -> list[str]:
    """Names of the site's nodes."""
    return re.findall(r"^NodeName=(\S+)", (home / "slurm.conf").read_text(), re.MULTILINE)


def name_of(port: int) -> str:
    return f"n{port}"


def ports_of(slot: int) -> list[int]:
    """The controller's, and one for each node."""
    return [FIRST_PORT + slot * SLOT_PORTS + i for i in range(SLOT_PORTS)]


def claimed(home: Path) -> int:
    """A free slot, whose nodes have names of this machine from here on."""
    with hosts() as file:
        taken = file.read()
        for slot in random.sample(range(SLOTS), SLOTS):
            ports = ports_of(slot)
            names = [name_of(port) for port in ports[1:]]
            if not any(f" {name} " in taken for name in names) and all(free(port) for port in ports):
                begin = "" if taken.endswith("\n") else "\n"
                file.write(begin + "".join(f"127.0.0.1 {name} {MARK} {home}\n" for name in names))
                return slot
    raise RuntimeError(f"no free ports for a site; lines of sites that ended badly may be in {HOSTS}")


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


@contextmanager
def hosts() -> Iterator[TextIO]:
    """The file, for one site at a time. It cannot be renamed into place: in containers it is a mount."""
    with HOSTS.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file


def idle(environment: dict[str, str]) -> int:
    told = subprocess.run(
        ["sinfo", "-h", "-N", "-o", "%N %T"], env=environment, capture_output=True, text=True, check=False
    )
    return len({line for line in told.stdout.splitlines() if line.endswith(" idle")})


def stop(home: Path) -> None:
    for path in (*(home / "run").glob("slurm*.pid"), home / "run" / "munged.pid"):
        end(path)
    for pid in left(home):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    with hosts() as file:
        kept = [line for line in file if not line.endswith(f"{MARK} {home}\n")]
        file.seek(0)
        file.writelines(kept)
        file.truncate()


def left(home: Path) -> list[int]:
    """Steps of jobs that would report their end to a controller that is gone, for ever."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            name, told = (place / "comm").read_text().strip(), (place / "environ").read_bytes()
            command = (place / "cmdline").read_text(errors="replace")
        except OSError:  # it has ended
            continue
        is_step = name == "slurmstepd" and f"SLURM_CONF={home}/".encode() in told
        if is_step or f"{home}/spool." in command:
            found.append(int(place.name))
    return found


def end(pid_file: Path) -> None:
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    try:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not runs(pid), f"{pid_file.stem} does not end")
    except ProcessLookupError:
        pass
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)


def runs(pid: int) -> bool:
    """Not so one that has ended, and that its parent has not looked after yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def start_node(home: Path, node: str) -> None:
    """A node's daemon again, after `end(home / "run" / f"slurmd.{node}.pid")`."""
    environment = os.environ | {
        "SLURM_CONF": str(home / "slurm.conf"),
        "PATH": os.environ["PATH"] + ":/usr/sbin",
    }
    subprocess.run(["slurmd", "-N", node], env=environment, check=True)


def until(happens: Callable[[], bool], otherwise: str, patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not happens():
        if time.monotonic() > deadline:
            raise TimeoutError(otherwise)
        time.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.site")
    deeds = parser.add_subparsers(dest="deed", required=True)
    deeds.add_parser("install")
    for name in ("start", "stop"):
        deeds.add_parser(name).add_argument("folder", type=lambda text: Path(text).absolute())
    asked = parser.parse_args()
    if asked.deed == "install":
        install()
    elif asked.deed == "start":
        print(start(asked.folder))
    else:
        stop(asked.folder)
