"""From a data-set recipe and a cluster profile to running jobs; given again, only what is missing is done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reprokit.building.asking import asked, difference, shard_recipe, write_shard_recipe
from reprokit.building.assemble import read_report
from reprokit.building.cost import describe_cost
from reprokit.building.directory import DatasetDirectory
from reprokit.building.graph import STAGES, Functions, plan, shards_of
from reprokit.building.report import describe
from reprokit.building.schema import DatasetRecipe, TeacherRecipe
from reprokit.building.verify import is_sampled
from reprokit.campaign.launching import run_here
from reprokit.campaign.report import print_running, print_scripts, print_submitted_once
from reprokit.campaign.submission import active_jobs, locked, new_logs, submit
from reprokit.cluster import slurm
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Scheduler
from reprokit.cluster.snapshot import Snapshot, take
from reprokit.errors import UserError
from reprokit.recipe import load_resolved
from reprokit.records.files import write_text
from reprokit.records.run_directory import SubmittedJobs


@dataclass(frozen=True)
class Building:
    """What one call of the command is to bring about; `text` is the recipe in full."""

    directory: DatasetDirectory
    recipe: DatasetRecipe
    text: str
    cluster: str
    profile: ClusterProfile
    stages: tuple[str, ...]
    functions: Functions

    def missing_jobs(self) -> list[Job]:
        return plan(self.directory, self.recipe, self.profile, self.stages, self.functions)


def dry_run(building: Building, console: Console) -> None:
    """Print the jobs and batch scripts; writes and submits nothing."""
    _check(building)
    jobs = building.missing_jobs()
    _print_jobs(building, jobs, console)
    print_scripts(jobs, building.profile, building.directory.run.logs, console)


def launch(building: Building, console: Console) -> None:
    """Run or submit what is missing.

    Raises:
        UserError: the folder is of another recipe, another launch is at work, a source, the teacher or the cluster is
            not there, a job failed, or Slurm refused one or does not answer.
    """
    _check(building)
    if building.profile.scheduler is Scheduler.slurm and not slurm.available():
        raise UserError(
            f"cluster={building.cluster} submits to Slurm, which is not here: log in to the cluster and type the same "
            "command there, or add cluster=local"
        )
    run = building.directory.run
    run.root.mkdir(parents=True, exist_ok=True)
    with locked(run):
        if running := active_jobs(run, building.profile):
            print_running(run, running, [], console)
            return
        if not building.missing_jobs():
            whole = "is complete" if building.stages == STAGES else f"lacks nothing of {', '.join(building.stages)}"
            console.print(f"data set {building.directory.name} {whole}; nothing was run again")
            _print_finished(building, console)
            return
        _update_recipes(building)
        logs, code = new_logs(run), take(run)
        run_here(
            [job for job in building.missing_jobs() if job.name == "prepare"], run, logs, console, code.environment
        )
        if building.stages == ("prepare",):
            console.print(f"{building.directory.name} is prepared; dry_run=true shows what the rest takes")
            return
        jobs = [job for job in building.missing_jobs() if job.name != "prepare"]
        _print_jobs(building, jobs, console)
        if building.profile.scheduler is Scheduler.local:
            run_here(jobs, run, logs, console, code.environment)
            _print_finished(building, console)
            return
        if jobs:
            _submit(building, jobs, logs, code, console)


def _submit(building: Building, jobs: Sequence[Job], logs: Path, code: Snapshot, console: Console) -> None:
    about = SubmittedJobs(
        cluster=building.cluster,
        slurm_conf=building.profile.environment.get("SLURM_CONF"),
        ids={},
        launch=logs.name,
        stages=list(building.stages),
        code=code.digest,
    )
    submitted = submit(jobs, building.directory.run, about, building.profile, code.environment)
    print_submitted_once(logs, submitted.ids, building.profile, console)


def _check(building: Building) -> None:
    """Raises UserError when the folder has rows, or responses of a teacher, that were made with other settings."""
    made = building.directory.read_prepared()
    if made is None:
        return
    changed = difference(made, building.recipe)
    drawn = any((building.directory.root / "shards").glob("*/evaluation/step_000000"))
    other_rows = building.directory.file.exists() and made.asked != asked(building.recipe)
    if changed and (drawn or other_rows):
        raise UserError(
            "\n".join(
                [
                    f"{building.directory.root} was made with other settings:",
                    *changed,
                    "Give this data set its own name (name=...), or move the folder away to start afresh.",
                ]
            )
        )


def _update_recipes(building: Building) -> None:
    """Let the jobs read the recipe as it is now; another number of samples is a matter of the shards."""
    directory, recipe = building.directory, building.recipe
    write_text(directory.run.recipe, building.text)
    made = directory.read_prepared()
    if made is None or not isinstance(recipe, TeacherRecipe) or difference(made, recipe):
        return
    for number in range(made.shards):
        shard, wanted = directory.shard(number), shard_recipe(recipe, number)
        if load_resolved(shard.recipe).evaluation != wanted.evaluation:
            write_shard_recipe(shard, wanted)


def _print_jobs(building: Building, jobs: Sequence[Job], console: Console) -> None:
    console.print(f"data set [bold]{building.directory.name}[/] on cluster={building.cluster}")
    table = Table("job", "elements", "each", "does", box=None, header_style="bold")
    for job in jobs:
        here = job.name == "prepare" or building.profile.scheduler is Scheduler.local
        each = job.resources
        shape = f"{each.nodes} x {each.tasks_per_node} tasks, {each.gpus_per_node} GPUs, at most {each.hours:g} h"
        table.add_row(job.name, str(len(job.elements)), "this machine" if here else shape, job.description)
    console.print(table)
    sampled = next((job for job in jobs if job.name == "sample"), None)
    if sampled is not None and isinstance(building.recipe, TeacherRecipe):
        for line in _cost(building, building.recipe):
            console.print(line, highlight=False, soft_wrap=True)


def _cost(building: Building, recipe: TeacherRecipe) -> Iterator[str]:
    """What the sampling takes; where it is not known how many shards there are, nothing is said."""
    directory = building.directory
    shards, known = shards_of(directory, recipe)
    if known:
        missing = [number for number in shards if not is_sampled(directory, recipe, number)]
        yield from describe_cost(directory, recipe, building.profile, shards, missing)
    else:
        yield "GPU-hours: known once the questions are prepared (stages=prepare), or with questions.count"


def _print_finished(building: Building, console: Console) -> None:
    report = read_report(building.directory, building.recipe)
    if report is not None:
        console.print(describe(report), highlight=False, markup=False)
        console.print(f"file:   {building.directory.file}", soft_wrap=True, highlight=False)
        console.print(f"report: {building.directory.report}", soft_wrap=True, highlight=False)
