"""The files that Slurm reads: rendered from the layout, the chosen ports and the current user."""

from __future__ import annotations

import os
import random
import shlex
import socket

from layout import GPUS_PER_NODE, NODES, Layout, user_name

CLUSTER_NAME = "dev"
CPUS_PER_NODE = 4
MEMORY_PER_NODE = 20000  # MB; claimed, not checked, like the CPUs: jobs then never wait for the real machine's size
GRACE_SECONDS = 10  # between the signal to a preempted job and its end; Slurm may give up to 30 s more
CREDENTIAL_SECONDS = 20  # of a credential to start tasks; a job that is queued again waits as long
PORTS = range(16000, 20000)  # below those at which the tasks of a job meet, and below the ephemeral ports of Linux

SLURM_CONF = """\
ClusterName={cluster}
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={munge_socket},cred_expire={credential_seconds}
CredType=cred/munge

StateSaveLocation={state}
SlurmdSpoolDir={spool}/%n
SlurmctldPidFile={state}/slurmctld.pid
SlurmdPidFile={state}/%n.pid
SlurmctldLogFile={logs}/slurmctld.log
SlurmdLogFile={logs}/%n.log

MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
SwitchType=switch/none
PriorityType=priority/basic
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=2
MessageTimeout=30
SlurmdTimeout=300
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
{accounting}
{nodes}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=DEFAULT Nodes={node_names} MaxTime=INFINITE State=UP GraceTime={grace_seconds}
PartitionName=main Default=YES PriorityTier=2
PartitionName=urgent PriorityTier=3 PreemptMode=OFF
PartitionName=cancelled PriorityTier=1 PreemptMode=CANCEL
"""

ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort={port}
AccountingStoragePass={munge_socket}
AccountingStorageTRES=gres/gpu
"""

SLURMDBD_CONF = """\
DbdHost=localhost
DbdPort={port}
SlurmUser={user}
AuthType=auth/munge
AuthInfo=socket={munge_socket}
LogFile={logs}/slurmdbd.log
PidFile={state}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser={user}
StorageLoc=slurm_acct_db
"""

GRES_CONF = """\
AutoDetect=off
NodeName={node_names} Name=gpu File={devices}/gpu[0-{last}]
"""


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on, drawn at random so that clusters started together do not meet."""
    ports: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        ports.append(port)
        if len(ports) == count:
            break
    return ports


def write_configuration(layout: Layout, accounting: bool) -> None:
    """Make the cluster's folders, its munge key, its stand-ins for GPU devices, and its configuration files."""
    for folder in (layout.logs, *layout.folders):
        folder.mkdir(mode=0o700, exist_ok=True)
    layout.munge.joinpath("key").touch(mode=0o600)
    layout.munge.joinpath("key").write_bytes(os.urandom(128))
    for number in range(GPUS_PER_NODE):
        layout.devices.joinpath(f"gpu{number}").symlink_to("/dev/null")

    controller, database, *node_ports = free_ports(2 + len(NODES))
    values = {
        "cluster": CLUSTER_NAME,
        "grace_seconds": GRACE_SECONDS,
        "credential_seconds": CREDENTIAL_SECONDS,
        "user": user_name(),
        "munge_socket": layout.munge_socket,
        "state": layout.state,
        "spool": layout.spool,
        "logs": layout.logs,
        "devices": layout.devices,
        "node_names": ",".join(NODES),
        "last": GPUS_PER_NODE - 1,
        "port": database,
        "controller_port": controller,
        "accounting": ACCOUNTING.format(port=database, munge_socket=layout.munge_socket) if accounting else "",
        "nodes": "\n".join(
            f"NodeName={node} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs={CPUS_PER_NODE} "
            f"RealMemory={MEMORY_PER_NODE} Gres=gpu:{GPUS_PER_NODE} State=UNKNOWN"
            for node, port in zip(NODES, node_ports, strict=True)
        ),
    }
    layout.slurm_conf.write_text(SLURM_CONF.format(**values))
    layout.gres_conf.write_text(GRES_CONF.format(**values))
    if accounting:
        layout.slurmdbd_conf.touch(mode=0o600)  # slurmdbd refuses a file that others can read
        layout.slurmdbd_conf.write_text(SLURMDBD_CONF.format(**values))
    layout.environment.write_text(f"export SLURM_CONF={shlex.quote(str(layout.slurm_conf))}\n")
