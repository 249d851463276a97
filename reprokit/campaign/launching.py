"""From a recipe and a cluster profile to running jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from reprokit.campaign import needs, report
from reprokit.campaign.backfill import campaign_mark
from reprokit.campaign.cells import lost_cells
from reprokit.campaign.collect import collectable, keep_fuller
from reprokit.campaign.cost import Cost, cost
from reprokit.campaign.disk import check_disk
from reprokit.campaign.graph import BACKFILL, Workspace, plan, with_backfill
from reprokit.campaign.mending import damaged_pieces, mend
from reprokit.campaign.monitor import Monitor
from reprokit.campaign.run_folder import (
    describe_conflict,
    discard_other_preparation,
    write_recipe,
)
from reprokit.campaign.submission import active_ids, active_jobs, locked, new_logs, read_jobs, submit
from reprokit.cluster import local, slurm
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Scheduler
from reprokit.cluster.queue import QueuedJob
from reprokit.cluster.scratch import link_runs
from reprokit.cluster.snapshot import take
from reprokit.errors import UserError
from reprokit.recipe import LoadedRecipe
from reprokit.recipe.schema import Source
from reprokit.records import interrupted
from reprokit.records.files import read_json
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory, Stopped, SubmittedJobs
from reprokit.records.starts import Start, read_starts
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
    only: Cell | str | None = None  # one cell and what follows from it, or one job: without a back-fill

    @property
    def run(self) -> RunDirectory:
        return self.workspace.run(self.loaded.recipe.name)

    def missing_jobs(self) -> list[Job]:
        recipe = self.loaded.recipe
        current = self.figures_current(self.workspace.results / f"{recipe.name}.json", self.workspace.figures)
        if self.only is not None:
            return self._only_jobs(self.only, current)
        jobs = plan(self.workspace, recipe, self.profile, self.stages, self.functions, current)
        return with_backfill(jobs, self.workspace, recipe, self.profile, self.functions)

    def _only_jobs(self, only: Cell | str, current: bool) -> list[Job]:
        cells = {only} if isinstance(only, Cell) else None
        stages = [stage for stage in self.stages if stage != "train"] if isinstance(only, Cell) else [only]
        recipe = self.loaded.recipe
        return plan(self.workspace, recipe, self.profile, stages, self.functions, current, only=cells)

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
        if running := active_jobs(campaign.run, campaign.profile):
            report.print_running(campaign.run, running, _failed_meanwhile(campaign.run, running), console)
            return
        jobs = _mended_jobs(campaign, console)
        _start_anew(campaign.run, console)
        if not jobs:
            if not campaign.run.recipe.exists():
                write_recipe(campaign.run, campaign.loaded)
            report.print_nothing_to_do(campaign.workspace, campaign.run, campaign.loaded.recipe, console)
            return
        discard_other_preparation(campaign.run, campaign.loaded.recipe)
        write_recipe(campaign.run, campaign.loaded)
        _print_plan(campaign, jobs, console)
        if _trains(jobs):
            interrupted.set_aside_after(campaign.run, campaign.run.resume_step())
        _start(campaign, jobs, console)


def _mended_jobs(campaign: Campaign, console: Console) -> list[Job]:
    """The missing jobs, after what is damaged in the run folder was put right or told."""
    run, recipe = campaign.run, campaign.loaded.recipe
    report.print_damage(mend(run, recipe, campaign.workspace.results / f"{recipe.name}.json"), console)
    if run.training_complete.exists():
        interrupted.remove_needless(run)
    jobs = campaign.missing_jobs()
    report.print_damage(damaged_pieces(run, recipe, {job.name for job in jobs}), console)
    return jobs


def _start(campaign: Campaign, jobs: Sequence[Job], console: Console) -> None:
    run, profile = campaign.run, campaign.profile
    logs = new_logs(run)
    code = take(run)
    on_slurm = profile.scheduler is Scheduler.slurm
    here = [job for job in jobs if job.name == "prepare" or not on_slurm]
    run_here(here, run, logs, console, code.environment)
    if not on_slurm:
        report.print_finished(campaign.workspace, run, campaign.loaded.recipe, console)
        return
    about = SubmittedJobs(
        cluster=campaign.cluster,
        slurm_conf=profile.environment.get("SLURM_CONF"),
        ids={},
        launch=logs.name,
        stages=list(campaign.stages),
        code=code.digest,
        command=campaign.command,
        done=campaign_mark(run),
    )
    to_submit = [job for job in jobs if job not in here]
    submitted = submit(to_submit, run, about, profile, code.environment) if to_submit else about
    report.print_submitted(run, logs, submitted.ids, console)


def _start_anew(run: RunDirectory, console: Console) -> None:
    """Forget why the back-fill of an earlier launch stopped, and say what it was: a person wants to go on."""
    if run.stopped.exists():
        report.print_stopped(read_json(run.stopped, Stopped), console)
        run.stopped.unlink()


def _failed_meanwhile(run: RunDirectory, running: Sequence[QueuedJob]) -> list[Start]:
    """The last starts of jobs of this round that failed, while others go on."""
    submitted = read_jobs(run)
    if submitted is None or BACKFILL not in submitted.ids:
        return []
    last = {start.job: start for start in read_starts(run, submitted.launch)}
    return [start for start in last.values() if start.outcome == "failed" and start.job not in active_ids(running)]


def run_here(
    jobs: Sequence[Job], run: RunDirectory, logs: Path, console: Console, environment: Mapping[str, str]
) -> None:
    """Run jobs one after the other, with these variables; those that need a failed one are left out.

    Raises:
        UserError: what the first job that failed said, when the others have run; at once if all wait for it.
    """
    failed: dict[str, UserError | None] = {}
    for job in jobs:
        if job.needs_success and any(name in failed for name in job.after):
            failed[job.name] = None
            continue
        try:
            with _variables(environment), Monitor(console, job.name, run.progress(job.name)) as monitor:
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
    begun = campaign.run.recipe.exists() or campaign.run.has_trained() or campaign.run.has_evaluated()
    if not begun and not {job.name for job in jobs} & {"prepare", "train", "evaluate"}:
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


@contextmanager
def _variables(added: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started inside this block."""
    before = {name: os.environ.get(name) for name in added}
    os.environ.update(added)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
