"""How a run is getting on: its cells, its jobs, its training, and what the back-fill does about what is missing.

The truth about the cells is the files on disk, about jobs that wait or run it is Slurm's queue, and about those that
have ended what they wrote themselves; accounting is asked where there is any. Everything may be written, or removed,
while it is read here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Optional, TypeVar

import msgspec

from reprokit.campaign.graph import Workspace
from reprokit.campaign.holder import Holder, holder_of
from reprokit.campaign.status_cells import OnDisk, SampleCounts, cells_on_disk
from reprokit.campaign.status_jobs import (
    RUNNING,
    JobStatus,
    Known,
    last_start,
    launches_of,
    local_jobs,
    of_run,
    slurm_jobs,
)
from reprokit.campaign.status_training import TrainingStatus, training_status
from reprokit.cluster import queue
from reprokit.cluster.failures import Failure
from reprokit.errors import UserError
from reprokit.evaluation.gathering import meters
from reprokit.recipe import load_resolved
from reprokit.records.files import DamagedFileError, read_json
from reprokit.records.result import Cell
from reprokit.records.run_directory import LeftOut, RunDirectory, Stopped, SubmittedJobs
from reprokit.records.starts import Start, read_starts

T = TypeVar("T")
GENERATING = ("prepare", "train", "evaluate", "backfill")  # stages that lead to samples of a cell that has none


class CellStatus(msgspec.Struct, kw_only=True):
    """state: `done`, `generated` (not scored yet), `drawing` (a job does), `waiting` (a job will), `failed` (trying
    again cannot mend it; `failure` is the class), `damaged` (a file of it cannot be read), or `missing` (nothing will
    make it by itself). samples: so far, of those `asked` for; None before the problems are prepared.
    """

    step: int
    benchmark: str
    state: str
    samples: int
    asked: Optional[int]
    failure: Optional[str] = None


class RunStatus(msgspec.Struct, kw_only=True):
    """One run, as `python -m reprokit.status --json` prints it.

    cluster: profile of the last launch on Slurm, else "local". launch: its folder below `logs/`. launcher: the process
    that launches, or runs, it now. slurm: why the states of jobs are not known, if they are not. active: whether any
    job waits or runs, None where that is not known. round: submissions since a person launched, `fruitless` those
    in a row that left nothing new; excluded: nodes at fault; left_out: what trying
    again cannot mend; stopped: why the back-fill submits nothing more.
    starts: of the jobs of all launches, oldest first. problem: what keeps the run from being read.
    """

    run: str
    cluster: str = ""
    launch: Optional[str] = None
    launcher: Optional[str] = None
    slurm: Optional[str] = None
    active: Optional[bool] = False
    round: int = 1
    fruitless: int = 0
    excluded: list[str] = []
    left_out: list[LeftOut] = []
    stopped: Optional[Stopped] = None
    training: Optional[TrainingStatus] = None
    cells: list[CellStatus] = []
    jobs: list[JobStatus] = []
    starts: list[Start] = []
    problem: Optional[str] = None

    @property
    def is_stuck(self) -> bool:
        """Whether something is missing and nothing is there that would make it."""
        whole = self.problem is None and all(cell.state == "done" for cell in self.cells)
        return self.active is False and not whole


@dataclass
class Looking:
    """What is remembered from one look at the runs to the next, and, in one look, of each Slurm."""

    workspace: Workspace
    counts: SampleCounts = field(default_factory=SampleCounts)

    def at(self, names: Iterable[str]) -> list[RunStatus]:
        """Look at these runs."""
        queues: dict[str | None, list[queue.QueuedJob] | str] = {}
        return [self._at(self.workspace.run(name), queues) for name in names]

    def _at(self, run: RunDirectory, queues: dict[str | None, list[queue.QueuedJob] | str]) -> RunStatus:
        try:
            return self._status(run, queues)
        except (UserError, OSError) as error:  # a recipe that cannot be read, a folder that was just removed
            return RunStatus(run=run.root.name, problem=str(error))

    def _status(self, run: RunDirectory, queues: dict[str | None, list[queue.QueuedJob] | str]) -> RunStatus:
        recipe = load_resolved(run.recipe)
        launches = {launch: read_starts(run, launch) for launch in launches_of(run)}
        status = RunStatus(run=run.root.name, training=training_status(run, recipe))
        status.starts = [start for starts in launches.values() for start in starts]
        disk = cells_on_disk(run, recipe, self.counts)
        holder = holder_of(run)
        status.launcher = str(holder) if holder else None
        submitted = _read(run.jobs, SubmittedJobs)
        if submitted is None or _is_of_this_machine(launches, submitted.launch):
            _look_here(status, run, launches, holder)
        else:
            if submitted.slurm_conf not in queues:
                queues[submitted.slurm_conf] = _ask(submitted.slurm_conf)
            _look_at_slurm(status, run, submitted, launches, queues[submitted.slurm_conf])
            status.stopped = _read(run.stopped, Stopped)
        active = {job.active for job in status.jobs} | {holder is not None}
        status.active = True if True in active else None if None in active else False
        status.cells = [_cell(cell, disk[cell], status, launches) for cell in disk]
        _reckon(status, run)
        return status


def run_names(workspace: Workspace) -> list[str]:
    """All runs of `runs/`, sorted."""
    return sorted(path.parent.name for path in (workspace.root / "runs").glob("*/recipe.yaml"))


def find_run(workspace: Workspace, name: str) -> RunDirectory:
    """The folder of a run.

    Raises:
        UserError: there is no such run; the message names those that there are.
    """
    if name not in (names := run_names(workspace)):
        raise UserError(f"no run {name} in {workspace.root / 'runs'}; there are: {', '.join(names) or 'none'}")
    return workspace.run(name)


def _read(path: Path, shape: type[T]) -> T | None:
    with suppress(OSError, DamagedFileError):
        return read_json(path, shape)
    return None


def _ask(configuration: str | None) -> list[queue.QueuedJob] | str:
    try:
        return queue.queued(configuration)
    except UserError as error:
        return str(error)


def _is_of_this_machine(launches: dict[str, list[Start]], submitted: str) -> bool:
    """Whether jobs have begun here, without Slurm, after the launch that was submitted."""
    newest = max(launches, default="")
    return newest > submitted > "" and bool(launches[newest]) and not any(start.nodes for start in launches[newest])


def _look_here(status: RunStatus, run: RunDirectory, launches: dict[str, list[Start]], holder: Holder | None) -> None:
    status.cluster, status.launch = "local", max(launches, default=None)
    if status.launch is not None:
        runs = False if holder is None else holder.is_here or None
        status.jobs = local_jobs(run, launches[status.launch], runs)


def _look_at_slurm(
    status: RunStatus,
    run: RunDirectory,
    submitted: SubmittedJobs,
    launches: dict[str, list[Start]],
    queued: list[queue.QueuedJob] | str,
) -> None:
    status.cluster, status.launch = submitted.cluster, submitted.launch or max(launches, default=None)
    status.round, status.fruitless, status.excluded = submitted.round, submitted.fruitless, submitted.excluded
    status.left_out = submitted.left_out
    status.slurm = queued if isinstance(queued, str) else None
    known = Known(
        starts=launches.get(status.launch or "", []),
        queue=None if isinstance(queued, str) else of_run(queued, run, submitted),
        ended=partial(queue.ended, configuration=submitted.slurm_conf),
    )
    status.jobs = slurm_jobs(run, submitted, known)


def _cell(cell: Cell, disk: OnDisk, status: RunStatus, launches: dict[str, list[Start]]) -> CellStatus:
    """A cell by its files and, where they do not settle it, by the jobs that are about it."""
    found = CellStatus(
        step=cell.step, benchmark=cell.benchmark, state=disk.state, samples=disk.samples, asked=disk.asked
    )
    if disk.state in ("done", "generated"):
        return found
    active = [job for job in status.jobs if job.active and job.stage in GENERATING]
    if any(job.stage == "evaluate" and job.state == RUNNING and cell.step in job.steps for job in active):
        found.state = "drawing"
    elif failure := _failure(cell.step, status, launches, active):
        found.state, found.failure = "failed", failure
    elif (active or status.launcher) and disk.state == "missing":
        found.state = "waiting"
    return found


def _failure(step: int, status: RunStatus, launches: dict[str, list[Start]], active: Sequence[JobStatus]) -> str | None:
    """The class of the failure of the evaluation of a checkpoint, if trying again cannot mend it."""
    for each in status.left_out:
        if each.stage == "evaluate" and (step in each.steps or not each.steps):
            return each.failure
    last = last_start(launches, step)
    if last is None or last.failure is None or any(job.id == last.job for job in active):
        return None
    return None if Failure(last.failure).retried else last.failure


def _reckon(status: RunStatus, run: RunDirectory) -> None:
    """Say of the jobs that run when they will be done, where that can be told."""
    left: dict[int, int | None] = {}
    for cell in status.cells:
        before = left.get(cell.step, 0)
        left[cell.step] = None if before is None or cell.asked is None else before + cell.asked - cell.samples
    for job in status.jobs:
        if job.state == RUNNING and job.stage == "train" and status.training is not None:
            job.eta = status.training.eta
        elif job.state == RUNNING and job.stage == "evaluate" and job.steps and status.launch is not None:
            job.eta = _eta(run, f"{status.launch}.{job.id}.{job.restarts}", job.steps, left)


def _eta(run: RunDirectory, start: str, steps: Sequence[int], left: Mapping[int, int | None]) -> int | None:
    """Seconds for the samples that are `left` of some checkpoints, as quickly as this start of a job has drawn."""
    by_step = [meters(run, step, start) for step in steps]
    engines = max(map(len, by_step))
    made = sum(meter.samples for found in by_step for meter in found)
    busy = sum(meter.seconds for found in by_step for meter in found)
    remaining = [left.get(step, 0) for step in steps]
    if not made or not busy or None in remaining:
        return None
    return round(sum(filter(None, remaining)) * busy / made / engines)
