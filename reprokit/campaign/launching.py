"""From a recipe and a cluster profile to running jobs."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from reprokit.campaign import needs, report
from reprokit.campaign.cells import lost_cells
from reprokit.campaign.collect import collectable, keep_fuller
from reprokit.campaign.cost import Cost, cost
from reprokit.campaign.disk import check_disk
from reprokit.campaign.graph import Workspace, plan
from reprokit.campaign.monitor import Monitor
from reprokit.campaign.run_folder import (
    describe_conflict,
    discard_other_preparation,
    write_recipe,
)
from reprokit.cluster import local, slurm
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Scheduler
from reprokit.cluster.scratch import link_runs
from reprokit.errors import UserError
from reprokit.recipe import LoadedRecipe
from reprokit.recipe.schema import Source
from reprokit.records import interrupted
from reprokit.records.files import read_json, write_json
from reprokit.records.run_directory import RunDirectory, SubmittedJobs
from reprokit.words import interpreter


@dataclass(frozen=True)
class Campaign:
    """What one call of `launch` is to bring about."""

    workspace: Workspace
    loaded: LoadedRecipe
    command: str  # recipe=... as it was typed, for messages
    cluster: str
    profile: ClusterProfile
    stages: tuple[str, ...]
    functions: Mapping[str, Callable[..., None]]
    figures_current: Callable[[Path, Path], bool]  # results file, figures folder

    @property
    def run(self) -> RunDirectory:
        return self.workspace.run(self.loaded.recipe.name)

    def missing_jobs(self) -> list[Job]:
        recipe = self.loaded.recipe
        current = self.figures_current(self.workspace.results / f"{recipe.name}.json", self.workspace.figures)
        return plan(self.workspace, recipe, self.profile, self.stages, self.functions, current)

    def cost(self) -> Cost:
        """What the missing jobs are expected to cost."""
        return cost(self.loaded.recipe, self.profile, self.run, self.workspace.results, self.stages)


def dry_run(campaign: Campaign, console: Console) -> None:
    """Print the job graph, resources and batch scripts; writes and submits nothing.

    Raises:
        UserError: as `launch`, for what can be told without asking Slurm.
    """
    jobs = checked_jobs(campaign)
    _print_plan(campaign, jobs, console)
    report.print_scripts(jobs, campaign.profile, campaign.run.logs, console)


def launch(campaign: Campaign, console: Console) -> None:
    """Run or submit what is missing.

    Raises:
        UserError: the machine, cluster or disk does not fit, the run folder belongs to another recipe, another launch
            is at work, a job failed, or Slurm refused one or does not answer.
    """
    make_ready(campaign)
    jobs = checked_jobs(campaign)
    _check_keys(campaign, jobs)
    check_disk(campaign.cost().disk, campaign.run.root.parent, f"recipe {campaign.loaded.recipe.name}")
    campaign.run.root.mkdir(parents=True, exist_ok=True)
    with locked(campaign.run):
        if campaign.run.training_complete.exists():
            interrupted.remove_needless(campaign.run)
        jobs = campaign.missing_jobs()
        if not jobs:
            report.print_nothing_to_do(campaign.workspace, campaign.run, campaign.loaded.recipe, console)
            return
        if running := active_jobs(campaign.run):
            report.print_running(campaign.run, running, console)
            return
        discard_other_preparation(campaign.run, campaign.loaded.recipe)
        write_recipe(campaign.run, campaign.loaded)
        _print_plan(campaign, jobs, console)
        if _trains(jobs):
            interrupted.set_aside_after(campaign.run, campaign.run.resume_step())
        _start(campaign, jobs, console)


def _start(campaign: Campaign, jobs: Sequence[Job], console: Console) -> None:
    run = campaign.run
    logs = run.logs / time.strftime("%Y%m%d-%H%M%S")  # ids of jobs and processes come again: never share a folder
    on_slurm = campaign.profile.scheduler is Scheduler.slurm
    here = [job for job in jobs if job.name == "prepare" or not on_slurm]
    run_here(here, run, logs, console)
    if not on_slurm:
        report.print_finished(campaign.workspace, run, campaign.loaded.recipe, console)
        return
    ids = submit([job for job in jobs if job not in here], run, campaign.cluster, campaign.profile, logs)
    report.print_submitted(logs, ids, campaign.profile, console)


def submit(jobs: Sequence[Job], run: RunDirectory, cluster: str, profile: ClusterProfile, logs: Path) -> dict[str, str]:
    """Submit jobs to Slurm, and keep in the run folder who they are; returns the id of each, by name.

    Raises:
        UserError: Slurm refused one; then none is left submitted.
    """
    configuration = profile.environment.get("SLURM_CONF")

    def remember(ids: dict[str, str]) -> None:
        write_json(run.jobs, SubmittedJobs(cluster=cluster, slurm_conf=configuration, ids=ids))

    return slurm.submit(jobs, profile, logs, remember)


def run_here(jobs: Sequence[Job], run: RunDirectory, logs: Path, console: Console) -> None:
    """Run jobs one after the other; those that need a failed one are left out.

    Raises:
        UserError: what the first job that failed said, when the others have run; at once if all wait for it.
    """
    failed: dict[str, UserError | None] = {}
    for job in jobs:
        if job.needs_success and any(name in failed for name in job.after):
            failed[job.name] = None
            continue
        try:
            with Monitor(console, job.name, run.progress(job.name)) as monitor:
                local.run(job, logs, monitor.refresh)
        except UserError as error:
            if not job.after:
                raise
            failed[job.name] = error
    if errors := [error for error in failed.values() if error is not None]:
        raise errors[0]


def _print_plan(campaign: Campaign, jobs: Sequence[Job], console: Console) -> None:
    recipe = campaign.loaded.recipe
    report.print_plan(recipe, jobs, campaign.cost(), campaign.cluster, campaign.profile, console)
    if _trains(jobs) and campaign.run.has_trained():
        report.print_interrupted(campaign.run, console)
        report.print_lost(lost_cells(campaign.run, recipe, campaign.run.resume_step()), console)
    elif "evaluate" in campaign.stages and campaign.run.training_complete.exists():
        report.print_lost(lost_cells(campaign.run, recipe), console)


def _trains(jobs: Sequence[Job]) -> bool:
    return any(job.name == "train" for job in jobs)


def checked_jobs(campaign: Campaign) -> list[Job]:
    """The missing jobs.

    Raises:
        UserError: the run folder is missing or has another recipe, training or evaluation fit no machine or ranks, or
            results that are there would be lost.
    """
    recipe = campaign.loaded.recipe
    if conflict := describe_conflict(campaign.run, recipe):
        raise UserError(conflict)
    if "train" in campaign.stages and recipe.source is Source.training and not campaign.run.training_complete.exists():
        _check_training(campaign)
    jobs = campaign.missing_jobs()
    if "collect" in {job.name for job in jobs}:
        keep_fuller(campaign.workspace.results / f"{recipe.name}.json", collectable(campaign.run, recipe))
    if not campaign.run.recipe.exists() and not {job.name for job in jobs} & {"prepare", "train", "evaluate"}:
        raise UserError(
            f"run {campaign.run.root.name} was never started, so stages={','.join(campaign.stages)} have nothing to "
            "work on; leave stages out to run all of them"
        )
    return jobs


def _check_training(campaign: Campaign) -> None:
    """Raises UserError when training fits no machine or ranks."""
    recipe, profile, cluster = campaign.loaded.recipe, campaign.profile, campaign.cluster
    needs.check_shares(recipe, profile, cluster)
    try:
        needs.check_fits(recipe, profile, cluster)
    except UserError as error:
        if profile.scheduler is Scheduler.slurm:
            raise
        raise UserError(f"{error}\n{_what_works_here(campaign)}") from error


def _check_keys(campaign: Campaign, jobs: Sequence[Job]) -> None:
    """Raises UserError when the key of a judge behind a server is not at hand: hours later is too late to say so."""
    if "judge" not in {job.name for job in jobs}:
        return
    for name, judge in campaign.loaded.recipe.evaluation.judges.items():
        key = judge.api_key_variable
        if judge.endpoint is not None and key not in os.environ:  # which holds the profile's environment too
            raise UserError(
                f"evaluation.judges.{name}.endpoint needs a key in the environment variable {key}, which is not set. "
                f"Export it before you launch (jobs get it from there), or name another with "
                f"evaluation.judges.{name}.api_key_variable"
            )


def make_ready(campaign: Campaign) -> None:
    """Look for the scheduler, and for the folder of the runs where the profile has it.

    Raises:
        UserError: this machine cannot submit to the scheduler, or `runs` is another folder already.
    """
    _check_scheduler(campaign)
    link_runs(campaign.workspace.root, campaign.profile)


def _check_scheduler(campaign: Campaign) -> None:
    if campaign.profile.scheduler is Scheduler.local or slurm.available():
        return
    configuration = campaign.profile.environment.get("SLURM_CONF")
    if configuration is not None:
        raise UserError(
            f"cluster={campaign.cluster} names SLURM_CONF={configuration}, which is not there: the cluster is not up. "
            f"`make cluster-up` starts the one of slurm/dev.yaml.\n{_what_works_here(campaign)}"
        )
    raise UserError(
        f"cluster={campaign.cluster} submits to Slurm, but this machine is no part of such a cluster: log in to "
        f"the cluster and type the same command there.\n{_what_works_here(campaign)}"
    )


def _what_works_here(campaign: Campaign) -> str:
    cluster = campaign.cluster if campaign.profile.scheduler is Scheduler.slurm else "h200"
    return (
        "What works here, the plan for a cluster and the whole way with a tiny model:\n"
        f"  {interpreter()} -m reprokit.launch {campaign.command} cluster={cluster} dry_run=true\n"
        f"  {interpreter()} -m reprokit.launch recipe=mini cluster=local"
    )


def active_jobs(run: RunDirectory) -> dict[str, str]:
    """Jobs of an earlier launch that wait or run: stage and id -> Slurm state.

    Raises:
        UserError: it cannot be told whether they do.
    """
    if not run.jobs.exists():
        return {}
    submitted = read_json(run.jobs, SubmittedJobs)
    try:
        states = slurm.active(list(submitted.ids.values()), submitted.slurm_conf)
    except UserError as error:
        raise UserError(
            f"jobs of run {run.root.name} were submitted with cluster={submitted.cluster} before. {error}\n"
            f"If you know that they are gone, remove {run.jobs}."
        ) from error
    return {f"{name} {job_id}": states[job_id] for name, job_id in submitted.ids.items() if job_id in states}


@contextmanager
def locked(run: RunDirectory) -> Iterator[None]:
    """Keep a second launch of the same run out; the lock goes with the process, however that ends."""
    with run.lock.open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            stream.seek(0)
            holder = stream.read().strip() or "unknown"
            raise UserError(
                f"run {run.root.name} is being launched by another process ({holder}); wait until it ends"
            ) from error
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {os.uname().nodename}")
        stream.flush()
        yield
