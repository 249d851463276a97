"""Ending the jobs of a run that wait or run."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import psutil
from submitit.core.utils import DelayedSubmission

from reprokit.campaign.graph import BACKFILL
from reprokit.campaign.holder import holder_of
from reprokit.campaign.status_jobs import of_run, stage_of
from reprokit.campaign.submission import read_jobs
from reprokit.cluster import queue
from reprokit.cluster.profiles import load_profile
from reprokit.cluster.queue import QueuedJob
from reprokit.errors import UserError
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory, SubmittedJobs

GRACE_SECONDS = 30.0  # for a launcher to end what it has started
ROUNDS = 3  # of asking what is left: a back-fill may just have submitted more


def cancel_run(run: RunDirectory) -> Iterator[str]:
    """End all that is at work for a run; yields what was done, a line each.

    First who could start something new: the process that launches it or runs it on this machine, then the back-fill.

    Raises:
        UserError: the launcher is on another machine or does not end, or Slurm does not answer.
    """
    if (holder := holder_of(run)) is not None:
        if not holder.is_here:
            raise UserError(
                f"run {run.root.name} is at work in {holder}: give this command there; if that is a compute node, the "
                "back-fill is submitting, and you can try again here in a minute"
            )
        _end(holder.process)
        yield f"ended {holder}, which launched or ran it"
    asked: set[str] = set()
    for _ in range(ROUNDS):
        left = [job for job in _waiting_or_running(run) if job.job_id not in asked]
        left.sort(key=lambda job: stage_of(job) != BACKFILL)
        if not left:
            return
        for stage in dict.fromkeys(map(stage_of, left)):
            yield from _cancel([job for job in left if stage_of(job) == stage], run, whole=True)
        asked |= {job.job_id for job in left}


def cancel_stage(run: RunDirectory, stage: str) -> Iterator[str]:
    """Cancel one job, with all its elements.

    Raises:
        UserError: it runs on this machine, there is none of that name, or Slurm does not answer.
    """
    _refuse_local(run)
    jobs = _waiting_or_running(run)
    chosen = [job for job in jobs if stage_of(job) == stage]
    if jobs and not chosen:
        names = ", ".join(dict.fromkeys(map(stage_of, jobs)))
        raise UserError(f"job={stage}: run {run.root.name} has no such job that waits or runs; it has {names}")
    yield from _cancel(chosen, run, whole=True)
    yield from _comes_back(chosen, jobs)


def cancel_cell(run: RunDirectory, cell: Cell) -> Iterator[str]:
    """Cancel the element that evaluates a cell, and with it the other cells of its checkpoints.

    Raises:
        UserError: as `cancel_stage`.
    """
    _refuse_local(run)
    jobs = _waiting_or_running(run)
    chosen = [
        element for job in jobs if stage_of(job) == "evaluate" for element in _elements(job) if cell in element[1]
    ]
    for job, cells in chosen:
        yield from _cancel([job], run, whole=False)
        also = sorted({each.step for each in cells} - {cell.step})
        yield f"  it evaluates all of step {cell.step}" + (f", and steps {', '.join(map(str, also))}" if also else "")
    yield from _comes_back([job for job, _ in chosen], jobs)


def _end(process: int) -> None:
    """Raises UserError when the process does not end, or is another person's."""
    try:
        launcher = psutil.Process(process)
        launcher.send_signal(signal.SIGTERM)
        launcher.wait(GRACE_SECONDS)
    except psutil.NoSuchProcess:
        return
    except (psutil.TimeoutExpired, psutil.AccessDenied) as error:
        raise UserError(f"process {process} was told to end and has not: {error}") from error


def _refuse_local(run: RunDirectory) -> None:
    if (holder := holder_of(run)) is not None:
        raise UserError(
            f"run {run.root.name} is at work in {holder}, whose jobs end together: give run={run.root.name} alone"
        )


def _waiting_or_running(run: RunDirectory) -> list[QueuedJob]:
    submitted = read_jobs(run)
    if submitted is None and not run.cluster.exists():
        return []
    configuration = _configuration(run, submitted)
    jobs = of_run(queue.queued(configuration), run, submitted or SubmittedJobs(cluster="", ids={}))
    return [job for job in jobs if job.state != "COMPLETING"]


def _configuration(run: RunDirectory, submitted: SubmittedJobs | None) -> str | None:
    if submitted is not None:
        return submitted.slurm_conf
    return load_profile(str(run.cluster)).environment.get("SLURM_CONF")


def _cancel(jobs: Sequence[QueuedJob], run: RunDirectory, whole: bool) -> Iterator[str]:
    """Cancel jobs, or the array that they are elements of where it is `whole`."""
    ids = list(dict.fromkeys(job.job_id if whole else job.id for job in jobs))
    if ids:
        queue.cancel(ids, _configuration(run, read_jobs(run)))
    for job in jobs:
        yield f"cancelled {stage_of(job)} {job.id}, which was {job.state.lower()}"


def _comes_back(chosen: Sequence[QueuedJob], jobs: Sequence[QueuedJob]) -> Iterator[str]:
    backfill = next((job for job in jobs if stage_of(job) == BACKFILL), None)
    if chosen and backfill is not None and backfill not in chosen:
        yield (
            f"the back-fill, job {backfill.id}, submits what is missing when all other jobs have ended, this too; to "
            "keep it from that, cancel it with job=backfill"
        )


def _elements(job: QueuedJob) -> Iterator[tuple[QueuedJob, list[Cell]]]:
    """The elements of an evaluation that are in the queue, each with its cells, as they were handed to Slurm."""
    for name in job.element_ids:
        handed_over = Path(job.script).parent / f"{name}_submitted.pkl"
        try:
            _, cells, *_ = DelayedSubmission.load(handed_over).args
        except (OSError, ValueError, pickle.UnpicklingError) as error:
            raise UserError(f"what job {name} evaluates is not known: {error}. Cancel it with job=evaluate") from error
        yield replace(job, id=name), cells
