"""Which task of its job this process is, and where the tasks meet. No ssh, no hostfile."""

from __future__ import annotations

import os
import shutil
import socket
import zlib
from dataclasses import dataclass
from pathlib import Path

from submitit import JobEnvironment

from reprokit.cluster.asking import ask, last_line
from reprokit.errors import NodeError, UserError

# Below the ephemeral range of Linux (32768 and up), so that no outgoing connection holds the port.
FIRST_PORT, PORTS = 20000, 12000


@dataclass(frozen=True)
class Task:
    """One process of a job: `rank` of `world_size` in the job, `local_rank` on its node."""

    job_id: str
    start: str  # name of this start of the job: a requeued job keeps its id, and ids of local jobs come again
    rank: int
    world_size: int
    local_rank: int
    tasks_on_node: int
    hosts: tuple[str, ...]  # the nodes of the job, in the order of their tasks; empty: all are on this machine

    @property
    def cores(self) -> int:
        """CPU cores that this task may use."""
        granted = os.environ.get("SLURM_CPUS_PER_TASK")
        return int(granted) if granted else max(1, len(os.sched_getaffinity(0)) // self.tasks_on_node)


def current_task(with_all_cores: bool = True) -> Task:
    """The task that this process is, from what Slurm or the local executor put into its environment.

    Raises:
        UserError: `with_all_cores`, and it may use fewer cores than it was promised.
    """
    environment = JobEnvironment()
    if with_all_cores:
        check_cores()
    nodes = environment.num_nodes
    return Task(
        job_id=environment.job_id,
        start=_start(environment),
        rank=environment.global_rank,
        world_size=environment.num_tasks,
        local_rank=environment.local_rank,
        tasks_on_node=environment.num_tasks // nodes,
        hosts=tuple(environment.hostnames) if nodes > 1 else (),
    )


def check_cores() -> None:
    """Raises UserError when this task of a Slurm job may not use the cores that the profile asks for."""
    if (complaint := missing_cores()) is not None:
        raise UserError(complaint)


def missing_cores() -> str | None:
    """What is wrong with the cores that this task of a Slurm job may use, if there are fewer than it was promised.

    `srun` of Slurm 22.05 and later gives one core where it is not told otherwise, and a training then takes many times
    as long without a word. More cores than asked for are fine (nothing binds tasks to cores), and a machine that has
    fewer than Slurm believes cannot give more.
    """
    if os.environ.get("SUBMITIT_EXECUTOR") != "slurm":
        return None
    asked = int(os.environ.get("SLURM_CPUS_PER_TASK", "1"))
    granted = len(os.sched_getaffinity(0))
    if granted >= min(asked, os.cpu_count() or 1):
        return None
    binding = os.environ.get("SLURM_CPU_BIND", "not set")
    return (
        f"the profile asks for cpus_per_task: {asked}, but on node {os.environ.get('SLURMD_NODENAME', '?')} this "
        f"task may use {granted} of {os.cpu_count()} cores (SLURM_CPU_BIND: {binding}). Take what binds tasks to "
        "cores or changes SRUN_CPUS_PER_TASK out of setup, environment and python of the profile; if the cluster "
        "itself binds them wrongly, write environment: {SLURM_CPU_BIND: none}."
    )


def _start(environment: JobEnvironment) -> str:
    launched = Path(environment.paths.folder).parent.name  # the time of the launch
    return f"{launched}.{environment.job_id}.{os.environ.get('SLURM_RESTART_COUNT', '0')}"


def export_torch_environment(task: Task) -> None:
    """Set what torch.distributed reads: RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR, MASTER_PORT."""
    os.environ.update(
        RANK=str(task.rank),
        WORLD_SIZE=str(task.world_size),
        LOCAL_RANK=str(task.local_rank),
        LOCAL_WORLD_SIZE=str(task.tasks_on_node),
        MASTER_ADDR=address(task.hosts[0] if task.hosts else None),
        MASTER_PORT=str(port(task.job_id)),
    )


def port(job_id: str) -> int:
    """A port that every task derives from the job id, so that jobs on one node do not meet each other."""
    return FIRST_PORT + zlib.crc32(job_id.encode()) % PORTS


def address(host: str | None) -> str:
    """An address of the first node that resolves here.

    Slurm's node names need not be host names: then its own NodeAddr is asked for.

    Raises:
        UserError: neither is to be had, as in a container without Slurm's commands.
        NodeError: Slurm does not answer, as while its controller is started again.
    """
    if host is None:
        return "127.0.0.1"
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        asked = ask("scontrol", "show", "node", host)
        fields = dict(word.split("=", 1) for word in asked.text.split() if "=" in word)
        if "NodeAddr" in fields:
            return socket.gethostbyname(fields["NodeAddr"])
        is_there = shutil.which("scontrol") is not None
        raise (NodeError if is_there else UserError)(
            f"the name of the job's first node, {host}, does not resolve here ({error}), and scontrol does not say its "
            f"address ({last_line(asked.complaint)}): let names of nodes resolve, or make scontrol known to the python "
            "of the profile"
        ) from error
