"""A real SLURM on this machine: a controller and two node daemons from Debian's packages, with made-up GPUs.

    python -m tests.slurm.site install|start|stop FOLDER

Needs root. Without accounting, systemd or cgroups; `start` prints the SLURM_CONF to use.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

PACKAGES = ("munge", "slurmctld", "slurmd", "slurm-client")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
NODES = ("n1", "n2")
GPUS = 2  # of a node: character devices that stand for them
HOSTS = Path("/etc/hosts")
MARK = "# alpacafarm tests"
PATIENCE_S = 60

CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort=16817
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
KillWait=5
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
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
        subprocess.run(["apt-get", *command], env=environment, check=True, stdout=subprocess.DEVNULL)


def start(home: Path) -> Path:
    """Returns the configuration, once both nodes are idle."""
    conf = configure(home)
    environment = os.environ | {"SLURM_CONF": str(conf), "PATH": os.environ["PATH"] + ":/usr/sbin"}
    run = home / "run"
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
        *(["slurmd", "-N", node] for node in NODES),
    ]
    for daemon in daemons:
        subprocess.run(daemon, env=environment, check=True, stdout=subprocess.DEVNULL)
    until(lambda: idle(environment) == len(NODES), f"no idle nodes; logs are in {home}/log")
    return conf


def configure(home: Path) -> Path:
    for name in ("run", "log", "state", "munge", "dev", *(f"spool.{node}" for node in NODES)):
        (home / name).mkdir(parents=True, exist_ok=True)
    (home / "munge").chmod(0o700)
    key = home / "munge" / "key"
    if not key.exists():
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
    host = socket.gethostname().split(".")[0]
    # Other numbers than those of a site before this one, whose jobs may have left files.
    text = CONF.format(host=host, home=home, first_job=int(time.time()) % 60_000_000)
    devices = ["AutoDetect=off"]
    for number, node in enumerate(NODES, 1):
        text += (
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={17000 + number} CPUs=4 "
            f"RealMemory=8000 Gres=gpu:{GPUS}\n"
        )
        devices.append(f"NodeName={node} Name=gpu File={home}/dev/{node}-gpu[0-{GPUS - 1}]")
        for gpu in range(GPUS):
            device = home / "dev" / f"{node}-gpu{gpu}"
            if not device.exists():
                os.mknod(device, 0o20666, os.makedev(1, 3))
        if f" {node} " not in HOSTS.read_text():
            with HOSTS.open("a") as hosts:
                hosts.write(f"127.0.0.1 {node} {MARK}\n")
    (home / "gres.conf").write_text("\n".join(devices) + "\n")
    conf = home / "slurm.conf"
    conf.write_text(text)
    return conf


def idle(environment: dict[str, str]) -> int:
    told = subprocess.run(
        ["sinfo", "-h", "-N", "-o", "%N %T"], env=environment, capture_output=True, text=True, check=False
    )
    return len({line for line in told.stdout.splitlines() if line.endswith(" idle")})


def stop(home: Path) -> None:
    for path in (*(home / "run").glob("slurm*.pid"), home / "run" / "munged.pid"):
        end(path)
    kept = [line for line in HOSTS.read_text().splitlines() if not line.endswith(MARK)]
    HOSTS.write_text("\n".join(kept) + "\n")


def end(pid_file: Path) -> None:
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    try:
        os.kill(pid, signal.SIGTERM)
        until(lambda: not Path(f"/proc/{pid}").exists(), f"{pid_file.stem} does not end")
    except ProcessLookupError:
        pass
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
    pid_file.unlink(missing_ok=True)


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
    deed, place = sys.argv[1], Path(*sys.argv[2:]).absolute()
    if deed == "install":
        install()
    elif deed == "start":
        print(start(place))
    else:
        stop(place)
