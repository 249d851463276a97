"""From a recipe and a cluster profile to running jobs."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from reprokit.campaign import needs, report
from reprokit.campaign.graph import Workspace, plan
from reprokit.campaign.monitor import Monitor
from reprokit.campaign.run_folder import describe_conflict, set_aside_interrupted, write_recipe
from reprokit.cluster import local, slurm
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Scheduler
from reprokit.errors import UserError
from reprokit.recipe import LoadedRecipe
from reprokit.records.files import read_json, write_json
from reprokit.records.run_directory import RunDirectory


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


def dry_run(campaign: Campaign, console: Console) -> None:
    """Print the job graph, resources and batch scripts; writes and submits nothing."""
    _check_fits(campaign)
    report.print_plan(campaign.loaded.recipe, campaign.missing_jobs(), campaign.cluster, campaign.profile, console)
    report.print_scripts(campaign.missing_jobs(), campaign.profile, campaign.run.logs, console)


def launch(campaign: Campaign, console: Console) -> None:
    """Run or submit what is missing.

    Raises:
        UserError: the machine or cluster does not fit, the run folder belongs to another recipe, another launch is
            at work, a job failed, or Slurm refused one.
    """
    _check_fits(campaign)
    _check_scheduler(campaign)
    campaign.run.root.mkdir(parents=True, exist_ok=True)
    with _locked(campaign.run):
        if running := _active_jobs(campaign.run):
            report.print_running(campaign.run, running, console)
            return
        if conflict := describe_conflict(campaign.run, campaign.loaded.recipe):
            raise UserError(conflict)
        jobs = campaign.missing_jobs()
        if not jobs:
            report.print_nothing_to_do(campaign.workspace, campaign.run, campaign.loaded.recipe, console)
            return
        write_recipe(campaign.run, campaign.loaded)
        report.print_plan(campaign.loaded.recipe, jobs, campaign.cluster, campaign.profile, console)
        if any(job.name == "train" for job in jobs) and (kept := set_aside_interrupted(campaign.run)):
            console.print(f"An interrupted training was found; training starts again and what it left is in {kept}")
            jobs = campaign.missing_jobs()
        _start(campaign, jobs, console)


def _start(campaign: Campaign, jobs: Sequence[Job], console: Console) -> None:
    on_slurm = campaign.profile.scheduler is Scheduler.slurm
    here = [job for job in jobs if job.name == "prepare" or not on_slurm]
    for job in here:
        with Monitor(console, job.name, campaign.run.progress(job.name)) as monitor:
            local.run(job, campaign.run.logs, monitor.refresh)
    if on_slurm:
        ids = slurm.submit([job for job in jobs if job not in here], campaign.profile, campaign.run.logs)
        write_json(campaign.run.jobs, ids)
        report.print_submitted(campaign.run, ids, campaign.profile, console)
    else:
        report.print_finished(campaign.workspace, campaign.run, campaign.loaded.recipe, console)


def _check_fits(campaign: Campaign) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / needs.GIB
    try:
        needs.check_fits(campaign.loaded.recipe, campaign.profile, campaign.cluster, memory)
    except UserError as error:
        if campaign.profile.scheduler is Scheduler.slurm:
            raise UserError(f"{error}\nGive the training more nodes (train.nodes) in the cluster profile.") from error
        raise UserError(f"{error}\n{_what_works_here(campaign)}") from error


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
        f"  python -m reprokit.launch {campaign.command} cluster={cluster} dry_run=true\n"
        "  python -m reprokit.launch recipe=mini cluster=local"
    )


def _active_jobs(run: RunDirectory) -> dict[str, str]:
    """Jobs of an earlier launch that wait or run: stage and id -> Slurm state."""
    if not run.jobs.exists() or not slurm.available():
        return {}
    ids = read_json(run.jobs, dict[str, str])
    states = slurm.active(list(ids.values()))
    return {f"{name} {job_id}": states[job_id] for name, job_id in ids.items() if job_id in states}


@contextmanager
def _locked(run: RunDirectory) -> Iterator[None]:
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
