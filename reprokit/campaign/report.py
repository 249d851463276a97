"""What a launch tells the person who typed it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from reprokit.campaign import needs
from reprokit.campaign.cost import Cost, hours_in_words, rounded
from reprokit.campaign.disk import in_words
from reprokit.campaign.graph import Workspace
from reprokit.cluster import slurm
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.cluster.queue import QueuedJob
from reprokit.recipe.schema import Recipe
from reprokit.records.record import read_results
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory, Stopped
from reprokit.records.secrets import without_secrets
from reprokit.records.starts import Start
from reprokit.words import interpreter

HOW_TO_MEASURE = {
    "training_mfu": "training_mfu is mfu in train/metrics.jsonl, or MFU of python -m tests.performance.gpu_training",
    "decoding_mbu": "decoding_mbu is printed by python -m tests.performance.gpu_evaluation",
}
LONG_JOBS = {
    "train": "training takes about {} h; stopped after {}, it goes on from its last state",
    "evaluate": "an element of the evaluation takes up to {} h; stopped after {}, it keeps its samples and goes on",
}


def print_plan(
    recipe: Recipe, jobs: Sequence[Job], estimated: Cost, cluster: str, profile: ClusterProfile, console: Console
) -> None:
    """The job graph with the resources of each job, and what they are expected to cost."""
    console.print(f"run [bold]{recipe.name}[/] on cluster={cluster}")
    if not jobs:
        console.print("nothing is missing")
        return
    trains = any(job.name == "train" for job in jobs)
    if trains and (memory := needs.summary(recipe, profile)):
        console.print(memory)
    print_cost(estimated, console)
    table = Table("job", "elements", "each", "after", "does", box=None, header_style="bold")
    names = {job.name for job in jobs}
    for job in jobs:
        waits = ", ".join(name for name in job.after if name in names)
        condition = "" if job.needs_success or not waits else " (even if failed)"
        here = job.name == "prepare" or profile.scheduler is Scheduler.local
        each = "this machine" if job.name == "prepare" else _describe(job.resources, here)
        table.add_row(job.name, str(len(job.elements)), each, waits + condition, job.description)
    console.print(table)


def print_cost(cost: Cost, console: Console) -> None:
    """Time and disk, what both rest on, and limits that will be run into."""
    for name, text in cost_in_words(cost):
        console.print(f"{name:<8} {text}", highlight=False, soft_wrap=True)


def cost_in_words(cost: Cost) -> Iterator[tuple[str, str]]:
    """Lines of `print_cost`, each with its name."""
    if cost.unknown:
        yield "time:", cost.unknown
    elif cost.gpu_hours and cost.wall_hours is not None:
        wall = f"{rounded(cost.wall_hours)} h if every job gets its nodes at once"
        yield "time:", f"{hours_in_words(cost)}, {wall}"
    disk = cost.disk
    parts = {
        "checkpoints": disk.checkpoints,
        "resumable states while it trains": disk.states,
        "samples": disk.samples,
        "published checkpoints to fetch": disk.published,
        "other models to fetch": disk.hub,
    }
    if said := [f"{in_words(size)} of {what}" for what, size in parts.items() if size >= 1e6]:
        yield "disk:", ", ".join(said)
    if cost.gpu_hours:
        yield from _assumed(cost)
        yield from (("note:", note) for note in _notes(cost))


def _assumed(cost: Cost) -> Iterator[tuple[str, str]]:
    """What the times rest on, and how to replace assumed rates by measured ones."""
    said = list(cost.assumptions)
    if cost.responses:
        said.append("responses of " + " to ".join(dict.fromkeys(map(rounded, cost.responses))) + " tokens")
    if said:
        yield "assumed:", ", ".join(said)
    if unmeasured := [HOW_TO_MEASURE[rate] for rate in HOW_TO_MEASURE if any(rate in one for one in cost.assumptions)]:
        yield "", f"estimates, until the cluster profile has measured rates: {'; '.join(unmeasured)}"


def _notes(cost: Cost) -> Iterator[str]:
    """A benchmark that most is spent on, and limits that will be run into."""
    tokens = sum(cost.tokens.values())
    largest = max(cost.tokens, key=lambda name: cost.tokens[name], default="")
    if len(cost.tokens) > 1 and cost.tokens[largest] > tokens / 2:
        share = f"{cost.tokens[largest] / tokens:.0%} of the tokens to generate are for {largest}"
        yield f"{share}; evaluation.benchmarks.{largest}.items=N takes the first N of its problems"
    for stage, job in cost.too_long.items():
        limit = f"{job.limit:g} h ({stage}.hours of the cluster profile)"
        again = f"when you launch again; raise {stage}.hours to have it in one go"
        yield f"{LONG_JOBS[stage].format(rounded(job.hours), limit)} {again}"


def _describe(resources: Resources, here: bool) -> str:
    tasks = _count(resources.tasks_per_node, "task")
    if here:
        return f"this machine, {tasks}"
    gpus = f", {_count(resources.gpus_per_node, 'GPU')}" if resources.gpus_per_node else ""
    cores = _count(resources.cpus_per_task, "core")
    return f"{_count(resources.nodes, 'node')} x ({tasks} of {cores}{gpus}), at most {resources.hours:g} h"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def print_scripts(jobs: Sequence[Job], profile: ClusterProfile, logs: Path, console: Console) -> None:
    """The batch script of every Slurm job; ids that only Slurm can give are written as <job name>."""
    ids = {job.name: f"<{job.name}>" for job in jobs if job.name != "prepare"}
    for job in jobs:
        if job.name != "prepare" and profile.scheduler is Scheduler.slurm:
            text = slurm.sbatch_text(job, profile, logs, slurm.dependency_of(job, ids))
            console.print(f"\n[bold]sbatch script of {job.name}[/]")
            console.print(text, markup=False, highlight=False, soft_wrap=True)
    console.print("dry run: nothing was written or submitted")


def print_damage(lines: Sequence[str], console: Console) -> None:
    """What was found damaged in the run folder, a line for each piece, and what becomes of it."""
    for line in lines:
        console.print(f"damage: {line}", soft_wrap=True, highlight=False, markup=False)


def print_interrupted(run: RunDirectory, console: Console) -> None:
    """What a launch does with a training that did not reach its end."""
    step = run.resume_step()
    begins = (
        f"training resumes at step {step}" if step else "there is no state to resume from: training starts at step 0"
    )
    later = "what it left" if step == 0 else "what it left of later steps"
    console.print(
        f"A training that did not reach its end is here; {begins}, and {later} is kept in {run.root}/interrupted_NN",
        soft_wrap=True,
    )


def print_lost(lost: Sequence[Cell], console: Console) -> None:
    """Cells that nobody can evaluate any more."""
    if lost:
        steps = ", ".join(str(step) for step in sorted({cell.step for cell in lost}))
        console.print(
            f"{len(lost)} cells stay missing: the checkpoints of steps {steps} were removed or damaged after they had "
            "been saved. To have them again, train under another name."
        )


def print_submitted(run: RunDirectory, logs: Path, ids: Mapping[str, str], console: Console) -> None:
    """Job ids, and how to watch and cancel them, also those that the back-fill will submit."""
    _print_ids(logs, ids, console)
    for name, command in (("state", "status"), ("cancel", "cancel")):
        words = f"{interpreter()} -m reprokit.{command} run={run.root.name}"
        console.print(f"{name + ':':<7} {words}", soft_wrap=True, highlight=False, markup=False)


def print_submitted_once(logs: Path, ids: Mapping[str, str], profile: ClusterProfile, console: Console) -> None:
    """The same of jobs that no back-fill follows, with Slurm's own commands."""
    _print_ids(logs, ids, console)
    prefix = "".join(f"{name}={value} " for name, value in without_secrets(profile.environment).items())
    joined = ",".join(ids.values())
    console.print(f"state:  {prefix}squeue -j {joined}", soft_wrap=True, highlight=False)
    console.print(f"cancel: {prefix}scancel {' '.join(ids.values())}", soft_wrap=True, highlight=False)


def _print_ids(logs: Path, ids: Mapping[str, str], console: Console) -> None:
    table = Table("job", "Slurm id", "logs", box=None, header_style="bold")
    for name, job_id in ids.items():
        table.add_row(name, job_id, f"{logs / name.partition('.')[0]}/")  # the arrays of a job share a folder
    console.print(table)


def print_running(run: RunDirectory, running: Sequence[QueuedJob], failed: Sequence[Start], console: Console) -> None:
    """Jobs of an earlier launch are still active: nothing was submitted. `failed`: jobs that have ended meanwhile."""
    console.print(f"run {run.root.name} is already at work; nothing was submitted:")
    for job in running:
        why = f" ({job.reason})" if job.state == "PENDING" and job.reason not in ("None", "") else ""
        console.print(f"  {job.name.partition('.')[0]} {job.id}: {job.state}{why}", highlight=False)
    if held := dict.fromkeys(job.job_id for job in running if job.is_held):
        console.print(
            f"  held jobs never begin: `scontrol release {','.join(held)}` lets them go, `scancel {' '.join(held)}` "
            "ends them",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
    for start in failed:
        steps = f" of steps {', '.join(map(str, start.steps))}" if start.steps else ""
        said = f"{start.stage} {start.job}{steps} failed ({start.failure}: {start.reason})"
        console.print(f"  {said}; the back-fill sees to it when the others have ended", highlight=False, markup=False)


def print_stopped(stopped: Stopped, console: Console) -> None:
    """Why the back-fill of an earlier launch had stopped."""
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(stopped.when))
    console.print(
        f"The back-fill had stopped after round {stopped.round} ({when}): {stopped.reason}. All is tried again.",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )


def print_nothing_to_do(workspace: Workspace, run: RunDirectory, recipe: Recipe, console: Console) -> None:
    """Everything is there."""
    console.print(f"run {recipe.name} is complete; nothing was run again")
    print_finished(workspace, run, recipe, console)


def print_finished(workspace: Workspace, run: RunDirectory, recipe: Recipe, console: Console) -> None:
    """Scores per step, and where everything is."""
    path = workspace.results / f"{recipe.name}.json"
    if path.exists():
        results = read_results(path)
        shown = [record for record in results.records if record.headline]
        values = {(record.benchmark, record.step): f"{record.value:.2f}" for record in shown}
        steps = sorted({record.step for record in shown})
        table = Table("step", "", *map(str, steps), box=None, header_style="bold")
        for benchmark, (metric, unit) in {record.benchmark: (record.metric, record.unit) for record in shown}.items():
            cells = (values.get((benchmark, step), "missing") for step in steps)
            table.add_row(benchmark, metric + (", %" if unit == "percent" else ""), *cells)
        console.print(table)
        if results.missing:
            console.print(f"{len(results.missing)} cells are missing; launch again to fill them in")
    console.print(f"run folder: {run.root}", soft_wrap=True, highlight=False)
    console.print(f"results:    {path}", soft_wrap=True, highlight=False)
    console.print(f"figures:    {workspace.figures}", soft_wrap=True, highlight=False)
