"""What became of the jobs of a run: from Slurm's queue, where there is one, and from what the jobs wrote themselves."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Optional

import msgspec

from reprokit.cluster.job import stage_in
from reprokit.cluster.queue import QueuedJob, is_held
from reprokit.cluster.slurm import is_below
from reprokit.records.files import DamagedFileError, read_json
from reprokit.records.progress import Progress
from reprokit.records.run_directory import RunDirectory, SubmittedJobs
from reprokit.records.starts import Start

GONE, UNKNOWN, RUNNING = "gone", "unknown", "RUNNING"


class JobStatus(msgspec.Struct, kw_only=True):
    """A job, an element of an array, or the elements that wait (id "12_[4-9]").

    state: in capitals what Slurm says (PENDING, RUNNING, COMPLETING, TIMEOUT ...; RUNNING also for a job of this
        machine); else how it ended by its own account ("done", "left", "failed"), "gone" where neither says anything,
        "unknown" while Slurm does not answer.
    active: it waits, runs or ends just now; None where that is not known.
    reason: why it waits or how it ended; failure: its class, of one that failed.
    elapsed, limit, eta: seconds; eta is None where there is nothing to reckon with. nodes: Slurm's names.
    restarts: starts before this one. steps: checkpoints that it is known to evaluate. doing: what it says itself.
    """

    stage: str
    id: str
    state: str
    active: Optional[bool]
    reason: str = ""
    failure: Optional[str] = None
    nodes: list[str] = []
    elapsed: Optional[int] = None
    limit: Optional[int] = None
    eta: Optional[int] = None
    restarts: int = 0
    steps: list[int] = []
    doing: str = ""

    @property
    def is_held(self) -> bool:
        """Whether it waits for its release alone, which a launch that was killed cannot give any more."""
        return self.state == "PENDING" and is_held(self.reason)


@dataclass(frozen=True)
class Known:
    """What there is to tell from: `starts` of one launch, `queue` of this run alone, or None where Slurm does not
    answer; `ended` gives final states (see `reprokit.cluster.queue.ended`) and is asked only when needed.
    """

    starts: Sequence[Start]
    queue: Sequence[QueuedJob] | None
    ended: Callable[[Iterable[str]], Mapping[str, str]]


def launches_of(run: RunDirectory) -> list[str]:
    """Names of the folders below `logs/`, oldest first: they are named after the time."""
    with suppress(OSError):
        return sorted(path.name for path in run.logs.iterdir() if path.is_dir())
    return []


def of_run(queue: Sequence[QueuedJob], run: RunDirectory, submitted: SubmittedJobs) -> list[QueuedJob]:
    """Those jobs of a user that are jobs of this run: by the place of their batch script, for Slurm gives ids again."""
    ids = set(submitted.ids.values())
    return [
        job for job in queue if is_below(job.script, run.logs) or (job.job_id in ids and not os.path.exists(job.script))
    ]


def slurm_jobs(run: RunDirectory, submitted: SubmittedJobs, known: Known) -> list[JobStatus]:
    """All jobs of the last submission, in its order, and those of others that are still in the queue."""
    starts = _by_job(known.starts)
    named = [(stage_in(name), job_id) for name, job_id in submitted.ids.items()]
    others = {job.job_id: stage_of(job) for job in known.queue or () if job.job_id not in submitted.ids.values()}
    found: list[JobStatus] = []
    open_ids: list[str] = []
    for stage, job_id in [*named, *((stage, job_id) for job_id, stage in others.items())]:
        queued = [job for job in known.queue or () if job.job_id == job_id]
        live = {element for job in queued for element in job.element_ids}
        found += [_queued(run, stage, job, starts.get(job.id, [])) for job in queued]
        past = [_past(stage, job, own) for job, own in starts.items() if _is_of(job, job_id) and job not in live]
        found += past
        if any(job.state == GONE for job in past) or not (queued or past):
            open_ids.append(job_id)
            found += [] if queued or past else [JobStatus(stage=stage, id=job_id, state=GONE, active=False)]
    if known.queue is None:
        return [_unknown(job) if job.state == GONE else job for job in found]
    return list(_with_final_states(found, known.ended(open_ids) if open_ids else {}))


def stage_of(job: QueuedJob) -> str:
    """The stage of a job of ours, which its name begins with."""
    return stage_in(job.name)


def local_jobs(run: RunDirectory, starts: Sequence[Start], runs: bool | None) -> list[JobStatus]:
    """Jobs of a launch on this machine; `runs`: whether its launcher does, None if it is on another machine.

    They run one after the other, so that only the last can be running.
    """
    found = [_past(own[-1].stage, job, own) for job, own in _by_job(starts).items()]
    if found and found[-1].state == GONE and runs is not False:
        last = found[-1]
        elapsed = round(time.time() - _by_job(starts)[last.id][-1].started)
        last.state, last.active, last.elapsed = (RUNNING, True, elapsed) if runs else (UNKNOWN, None, None)
        last.doing = doing(run, last.stage) if runs else ""
    return found


def doing(run: RunDirectory, stage: str) -> str:
    """What the progress file of a stage says; nothing where it is not there or half-written."""
    try:
        now = read_json(run.progress(stage), Progress)
    except (OSError, DamagedFileError):
        return ""
    return f"{now.description} {now.done}/{now.total} {now.detail}".strip()


def _by_job(starts: Iterable[Start]) -> dict[str, list[Start]]:
    """Starts of each job, one per restart, in order: that of a rank that failed counts more than that of the first."""
    kept: dict[tuple[str, int], Start] = {}
    for start in starts:
        key = (start.job, start.restart)
        if key not in kept or (start.outcome == "failed" and kept[key].outcome != "failed"):
            kept[key] = start
    jobs: dict[str, list[Start]] = {}
    for (job, _), start in sorted(kept.items(), key=lambda item: (item[1].started, item[0][1])):
        jobs.setdefault(job, []).append(start)
    return jobs


def _is_of(job: str, job_id: str) -> bool:
    return job == job_id or job.startswith(f"{job_id}_")


def _queued(run: RunDirectory, stage: str, job: QueuedJob, starts: Sequence[Start]) -> JobStatus:
    running = job.state == RUNNING
    return JobStatus(
        stage=stage,
        id=job.id,
        state=job.state,
        active=True,
        reason="" if job.reason == "None" else job.reason,
        nodes=job.nodes,
        elapsed=job.elapsed if job.nodes else None,
        limit=job.limit,
        restarts=starts[-1].restart if starts else 0,
        steps=starts[-1].steps if starts else [],
        doing=doing(run, stage) if running and stage != "evaluate" else "",  # all its elements write the same file
    )


def _past(stage: str, job: str, starts: Sequence[Start]) -> JobStatus:
    """A job that is in no queue, by its last start; one that left no outcome is gone."""
    last = starts[-1]
    return JobStatus(
        stage=stage,
        id=job,
        state=last.outcome or GONE,
        active=False,
        reason=last.reason,
        failure=last.failure,
        nodes=last.nodes,
        elapsed=None if last.ended is None else max(0, round(last.ended - last.started)),
        restarts=last.restart,
        steps=last.steps,
    )


def _unknown(job: JobStatus) -> JobStatus:
    return msgspec.structs.replace(job, state=UNKNOWN, active=None)


def _with_final_states(jobs: Sequence[JobStatus], states: Mapping[str, str]) -> Iterator[JobStatus]:
    """The jobs, those that are gone with Slurm's word for it; and elements that ended before they wrote anything."""
    shown = {job.id for job in jobs}
    for job in jobs:
        of_array = {key: state for key, state in states.items() if key not in shown and _is_of(key, job.id)}
        if job.state != GONE:
            yield job
        elif job.id in states or not of_array:
            yield msgspec.structs.replace(job, state=states.get(job.id, GONE))
        else:
            yield from (msgspec.structs.replace(job, id=key, state=state) for key, state in of_array.items())


def last_start(launches: dict[str, list[Start]], step: int) -> Start | None:
    """The last start of an evaluation that was about a checkpoint; where one of its tasks failed, that task's.

    `launches` are in order: ids of jobs come again in another launch.
    """
    for starts in reversed(launches.values()):
        jobs = _by_job(start for start in starts if start.stage == "evaluate" and step in start.steps)
        if jobs:
            return max((own[-1] for own in jobs.values()), key=lambda start: start.started)
    return None
