"""Jobs of a run on Slurm: who submits them, which are there, and none twice."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import IO

import msgspec

from reprokit.campaign.holder import Holder
from reprokit.campaign.status_jobs import of_run
from reprokit.cluster import slurm
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Scheduler
from reprokit.cluster.profiles import load_profile, save_profile
from reprokit.cluster.queue import QueuedJob, cancel, queued, release
from reprokit.cluster.slurm import NOTHING
from reprokit.errors import UserError
from reprokit.records.files import DamagedFileError, read_json, write_json
from reprokit.records.run_directory import RunDirectory, SubmittedJobs

HELD = ("JobHeldUser", "None")  # Slurm's reasons of a job that waits for its release; the second in the first seconds
LOCK_POLL_SECONDS = 1.0


def new_logs(run: RunDirectory) -> Path:
    """Make the folder of the logs of one launch: ids of jobs and processes come again, and clocks jump back."""
    run.logs.mkdir(parents=True, exist_ok=True)
    now = time.strftime("%Y%m%d-%H%M%S")
    for number in count(1):
        folder = run.logs / (now if number == 1 else f"{now}-{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        return folder
    raise AssertionError


def submit(
    jobs: Sequence[Job],
    run: RunDirectory,
    about: SubmittedJobs,
    profile: ClusterProfile,
    environment: Mapping[str, str],
    earlier: Mapping[str, str] = NOTHING,
    check: Callable[[], None] = lambda: None,
) -> SubmittedJobs:
    """Submit jobs to Slurm, and keep in the run folder who they are.

    Args:
        about: what to keep, with the ids of jobs that it keeps for these.
        environment: variables with which the jobs run the snapshot of the code.
        earlier: ids of jobs that were submitted before, and that `after` may name.
        check: raises an error if they are not to begin after all; asked when all are submitted.

    Raises:
        UserError: Slurm refused one, or of `check`; then none is left submitted.
    """
    before = read_jobs(run)
    save_profile(profile, run.cluster)
    excluded = ",".join([*([profile.exclude] if profile.exclude else []), *about.excluded]) or None

    def remember(ids: dict[str, str]) -> None:
        write_json(run.jobs, msgspec.structs.replace(about, ids={**about.ids, **earlier, **ids}, released=False))
        check()

    restricted = replace(profile, exclude=excluded)
    try:
        ids = slurm.submit(jobs, restricted, run.logs / about.launch, remember, environment, earlier)
    except BaseException:
        if before is not None:  # all that was submitted is cancelled: what it says of those before holds
            write_json(run.jobs, before)
        raise
    submitted = msgspec.structs.replace(about, ids={**about.ids, **earlier, **ids})
    write_json(run.jobs, submitted)
    return submitted


def read_jobs(run: RunDirectory) -> SubmittedJobs | None:
    """What was submitted last, None if nothing was; of a damaged file it is known only that, and on which cluster."""
    try:
        return read_json(run.jobs, SubmittedJobs) if run.jobs.exists() else None
    except DamagedFileError:
        profile = load_profile(str(run.cluster)) if run.cluster.exists() else ClusterProfile()
        return SubmittedJobs(cluster="", slurm_conf=profile.environment.get("SLURM_CONF"), ids={})


def active_jobs(run: RunDirectory, profile: ClusterProfile) -> list[QueuedJob]:
    """Jobs of this run that wait or run, also those that a launch was killed too early to keep the ids of.

    Such jobs have not begun and never will: the first of them are held. They are cancelled here, as the rest of what
    that launch wanted is not known, and not among those returned.

    Raises:
        UserError: it cannot be told whether they do.
    """
    submitted = read_jobs(run)
    if submitted is None and profile.scheduler is not Scheduler.slurm:
        return []
    named = profile.environment.get("SLURM_CONF")
    configurations = {named if submitted is None else submitted.slurm_conf}
    if profile.scheduler is Scheduler.slurm:
        configurations.add(named)
    known: list[QueuedJob] = []
    for configuration in configurations:  # ids are those of one cluster
        found = _ours(run, submitted, configuration)
        forgotten = _forgotten(run, submitted, found)
        cancel(sorted({job.job_id for job in forgotten}), configuration)
        known += [job for job in found if job not in forgotten]
    if submitted is not None and not submitted.released:
        release(sorted({job.job_id for job in known if _is_held(job)}), submitted.slurm_conf)
        write_json(run.jobs, msgspec.structs.replace(submitted, released=True))
        known = [replace(job, reason="None") if _is_held(job) else job for job in known]
    return known


def active_ids(jobs: Sequence[QueuedJob]) -> set[str]:
    """The ids of these jobs, and of each element that waits or runs."""
    found = {job.id for job in jobs}
    return found | {f"{job.job_id}_{index}" for job in jobs for index in job.elements or []}


def _ours(run: RunDirectory, submitted: SubmittedJobs | None, configuration: str | None) -> list[QueuedJob]:
    """By the place of their batch script; by their ids if it was moved, for ids come again on a cluster made anew."""
    try:
        jobs = queued(configuration)
    except UserError as error:
        raise UserError(
            f"whether jobs of run {run.root.name} wait or run is not known. {error}"
            + (f"\nIf you know that they are gone, remove {run.jobs}." if submitted is not None else "")
        ) from error
    return of_run(jobs, run, submitted or SubmittedJobs(cluster="", ids={}))


def _forgotten(run: RunDirectory, submitted: SubmittedJobs | None, jobs: Sequence[QueuedJob]) -> list[QueuedJob]:
    """Jobs of submissions that were killed before their end: all wait, and the first are held."""
    launches: dict[str, list[QueuedJob]] = {}
    for job in jobs:
        if slurm.is_below(job.script, run.logs):
            launches.setdefault(_launch_of(job, run), []).append(job)
    return [
        job
        for launch, members in launches.items()
        if submitted is None or launch != submitted.launch
        if all(member.state == "PENDING" for member in members) and any(map(_is_held, members))
        for job in members
    ]


def _is_held(job: QueuedJob) -> bool:
    return job.state == "PENDING" and job.reason in HELD


def _launch_of(job: QueuedJob, run: RunDirectory) -> str:
    return Path(os.path.realpath(job.script)).relative_to(os.path.realpath(run.logs)).parts[0]


@contextmanager
def locked(run: RunDirectory, patience: float = 0.0) -> Iterator[None]:
    """Keep a second launch of the same run out; the lock goes with the process, however that ends.

    Args:
        patience: seconds to wait for another one to end.

    Raises:
        UserError: another process is at it; the message says which, where and since when.
    """
    deadline = time.monotonic() + patience
    with run.lock.open("a+") as stream:
        while not _lock(stream):
            if time.monotonic() >= deadline:
                stream.seek(0)
                holder = stream.read().strip() or "unknown"
                raise UserError(
                    f"run {run.root.name} is being launched by another process ({holder}); wait until it ends"
                )
            time.sleep(LOCK_POLL_SECONDS)
        stream.truncate(0)
        stream.write(str(Holder.current()))
        stream.flush()
        yield


def _lock(stream: IO[str]) -> bool:
    """Try to lock; a file system that has no locks is trusted to be used by one launch at a time."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            print(f"{stream.name}: this file system has no locks; do not launch a run twice at the same moment")
            return True
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True
