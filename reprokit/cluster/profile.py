"""Cluster profiles: `slurm/<name>.yaml` says where jobs run and what each stage gets."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Optional

STAGES = ("train", "evaluate", "score", "collect")  # that a profile has resources for


class Scheduler(Enum):
    """Who starts the jobs."""

    slurm = "slurm"
    local = "local"


@dataclass
class Resources:
    """What a job gets. With GPUs there is one task per GPU, otherwise `tasks_per_node` tasks."""

    nodes: int = 1
    tasks_per_node: int = 1
    gpus_per_node: int = 0
    cpus_per_task: int = 1
    memory_gb: Optional[float] = None  # per node; default: the cluster's
    hours: float = 1.0
    partition: Optional[str] = None  # default: that of the profile

    @property
    def tasks(self) -> int:
        return self.nodes * self.tasks_per_node


@dataclass
class ClusterProfile:
    """One cluster. `setup` are shell lines that every job runs first (modules, conda).

    `python` is the shell command that jobs start instead of the Python of `launch`, for example
    `apptainer exec --nv image.sif python`; reprokit and the run folder must be visible to it. `sbatch` are further
    options of sbatch, by long name without dashes; `true` is an option without a value. Judges get what `evaluate`
    gets, on one node.
    """

    scheduler: Scheduler = Scheduler.slurm
    partition: Optional[str] = None
    account: Optional[str] = None
    qos: Optional[str] = None
    constraint: Optional[str] = None
    exclude: Optional[str] = None
    sbatch: dict[str, str] = field(default_factory=dict)
    setup: list[str] = field(default_factory=list)
    python: Optional[str] = None
    environment: dict[str, str] = field(default_factory=dict)  # of this command and of the jobs
    offline: bool = True  # Slurm jobs never ask the Hugging Face hub: all that they need was fetched before
    runs: Optional[str] = None  # where run folders lie, ~ and $NAME allowed; default: runs/ in the current folder
    gpu_memory_gb: Optional[float] = None  # of one GPU; None: no GPUs, computing is done by the CPU
    gpu: Optional[str] = None  # kind of GPU, for its peak rates: A100, H100, H200 ...
    gpu_type: Optional[str] = None  # the cluster's own name of it in `sinfo -o %G`, where a partition has several
    training_mfu: Optional[float] = None  # measured model FLOPs utilisation of training, 0..1; default: the plan's
    decoding_mbu: Optional[float] = None  # measured memory bandwidth utilisation of generation, 0..1; default: as above
    max_parallel: int = 64  # array elements at a time
    checkpoints_per_element: int = 1  # of the evaluation array; more share one engine start
    train: Resources = field(default_factory=Resources)
    evaluate: Resources = field(default_factory=Resources)
    score: Resources = field(default_factory=lambda: Resources(cpus_per_task=4, hours=4.0))
    collect: Resources = field(default_factory=Resources)
