"""The configuration of a mini Slurm cluster: its size, its ports and its files.

Each value that departs from Slurm's default is there for several slurmd on one host, for the
missing systemd and cgroups, or to let tests wait seconds where a site waits minutes.
"""

from __future__ import annotations

import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path

FIRST_PORT = 17000  # up to the system's ephemeral ports, which clients take at random
LAST_PORT = 32000

SLURM_CONF = """\
ClusterName={name}
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={root}/munge/munge.socket,cred_expire=5
CredType=cred/munge
StateSaveLocation={root}/state
SlurmdSpoolDir={root}/spool/%n
SlurmctldPidFile={root}/run/slurmctld.pid
SlurmdPidFile={root}/run/slurmd.%n.pid
SlurmctldLogFile={root}/log/slurmctld.log
SlurmdLogFile={root}/log/slurmd.%n.log
# Grace times of preempted jobs are logged at level debug.
SlurmctldDebug=debug
SlurmdDebug=info
MailProg=/bin/true
# Several slurmd on one host, without cgroups and systemd.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
# Jobs start within a second.
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,sched_min_interval=0,bf_interval=1,batch_sched_delay=0
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
# A dead node is noticed in half a minute; finished jobs stay in squeue for an hour.
ReturnToService=1
SlurmctldTimeout=10
SlurmdTimeout={slurmd_timeout_s}
InactiveLimit=0
MinJobAge=3600
KillWait={kill_wait_s}
OverTimeLimit=0
UnkillableStepTimeout=120
BatchStartTimeout=60
MessageTimeout=10
TCPTimeout=5
JobRequeue=1
MaxArraySize={max_array}
MaxJobCount=50000
{accounting}
GresTypes=gpu
NodeName={node_range} NodeHostname=localhost NodeAddr=127.0.0.1 Port={node_ports} CPUs={cpus} \
RealMemory={memory_mb} State=UNKNOWN{gres}
PartitionName=DEFAULT Nodes=ALL MaxTime=INFINITE State=UP PreemptMode=OFF
PartitionName=main Default=YES PriorityTier=10
PartitionName=low PriorityTier=1 PreemptMode=REQUEUE GraceTime={grace_s}
PartitionName=scavenge PriorityTier=1 PreemptMode=REQUEUE GraceTime=0
PartitionName=high PriorityTier=100
"""

# Connections to slurmdbd take munge's socket from AccountingStoragePass, not from AuthInfo.
WITH_ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={port}
AccountingStoragePass={root}/munge/munge.socket
AccountingStorageTRES=gres/gpu
AccountingStoreFlags=job_comment
JobCompType=jobcomp/none"""

WITHOUT_ACCOUNTING = """\
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none"""

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={root}/munge/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={port}
SlurmUser={user}
LogFile={root}/log/slurmdbd.log
PidFile={root}/run/slurmdbd.pid
DebugLevel=info
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=root
StoragePass=x
StorageLoc=slurm_acct_db
"""


@dataclass(frozen=True)
class ClusterSpec:
    """Size and settings of a mini cluster; `port` 0 takes a free range."""

    nodes: int = 4
    cpus: int = 4
    gpus: int = 2
    memory_mb: int = 64000
    port: int = 0
    accounting: bool = True
    isolate: str = "auto"  # "uts": own host name and /etc/hosts per node; "none"; "auto"
    grace_s: int = 20  # between the preemption signal and SIGTERM on partition low
    kill_wait_s: int = 10  # between SIGTERM and SIGKILL
    slurmd_timeout_s: int = 10
    max_array: int = 20001
    name: str = "mini"

    @property
    def node_names(self) -> list[str]:
        """`n1` to `nN`."""
        return [f"n{index}" for index in range(1, self.nodes + 1)]

    @property
    def accounting_port(self) -> int:
        """Where slurmdbd listens: after the controller and the nodes."""
        return self.port + self.nodes + 1

    @property
    def database_port(self) -> int:
        """Where MariaDB listens."""
        return self.port + self.nodes + 2

    @property
    def ports(self) -> range:
        """All ports of the cluster: controller, nodes, slurmdbd, MariaDB."""
        return range(self.port, self.port + self.nodes + 3)


def free_port_base(count: int) -> int:
    """The first of `count` consecutive free ports, outside the ephemeral range.

    Raises:
        RuntimeError: Every range is taken.
    """
    step = max(50, count)
    for base in range(FIRST_PORT, LAST_PORT - step, step):
        if all(_is_free(port) for port in range(base, base + count)):
            return base
    raise RuntimeError(f"no {count} free ports in a row from {FIRST_PORT} to {LAST_PORT}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True


def slurm_conf(spec: ClusterSpec, root: Path) -> str:
    """The text of slurm.conf."""
    accounting = WITHOUT_ACCOUNTING
    if spec.accounting:
        accounting = WITH_ACCOUNTING.format(port=spec.accounting_port, root=root)
    return SLURM_CONF.format(
        **vars(spec) | {"accounting": accounting},
        gres=f" Gres=gpu:{spec.gpus}" if spec.gpus else "",
        root=root,
        user=_user(),
        node_range=_node_range(spec),
        node_ports=_span(spec.port + 1, spec.port + spec.nodes),
    )


def write_configuration(spec: ClusterSpec, root: Path) -> None:
    """Every file and directory that the daemons need under `root`."""
    for folder in ("state", "spool", "log", "run", "munge", "dev", "db/data"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "slurm.conf").write_text(slurm_conf(spec, root))
    # gres/gpu counts device files, and wants each once: links to /dev/null do.
    for index in range(spec.gpus):
        link = root / "dev" / f"nvidia{index}"
        if not link.is_symlink():
            link.symlink_to("/dev/null")
    devices = f"{root}/dev/nvidia{_span(0, spec.gpus - 1)}"
    gres = f"NodeName={_node_range(spec)} Name=gpu File={devices}\n" if spec.gpus else ""
    (root / "gres.conf").write_text(f"AutoDetect=off\n{gres}")
    (root / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    # Each node has a loopback address of its own, so that a socket bound to the wrong one shows.
    names = "".join(f"127.0.1.{place} {name}\n" for place, name in enumerate(spec.node_names, 1))
    (root / "hosts").write_text(f"127.0.0.1 localhost\n127.0.0.1 {socket.gethostname()}\n{names}")
    if spec.accounting:
        text = SLURMDBD_CONF.format(
            root=root,
            user=_user(),
            port=spec.accounting_port,
            database_port=spec.database_port,
        )
        secret = root / "slurmdbd.conf"
        secret.touch(mode=0o600)
        secret.write_text(text)


def _user() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def _node_range(spec: ClusterSpec) -> str:
    return f"n{_span(1, spec.nodes)}"


def _span(first: int, last: int) -> str:
    return f"[{first}-{last}]" if last > first else str(first)
