"""What a launch of several runs tells the person who typed it."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from reprokit.cluster.job import Job
from reprokit.recipe import evaluated_steps
from reprokit.recipe.schema import Recipe


def print_selection(cluster: str, planned: Sequence[tuple[Recipe, Sequence[Job]]], console: Console) -> None:
    """One line for every run: what it evaluates, and what of it is missing."""
    console.print(f"{len(planned)} runs on cluster={cluster}")
    table = Table("run", "checkpoints", "benchmarks", "to do", box=None, header_style="bold")
    for recipe, jobs in planned:
        steps, benchmarks = evaluated_steps(recipe), recipe.evaluation.benchmarks
        todo = ", ".join(map(_name, jobs)) or "nothing is missing"
        table.add_row(recipe.name, str(len(steps)), str(len(benchmarks)), todo)
    console.print(table)
    cells = sum(len(evaluated_steps(recipe)) * len(recipe.evaluation.benchmarks) for recipe, _ in planned)
    jobs_to_do = [job for _, jobs in planned for job in jobs]
    elements = sum(len(job.elements) for job in jobs_to_do)
    console.print(f"{len(planned)} runs, {cells:,} cells, {len(jobs_to_do):,} jobs with {elements:,} elements to do")


def _name(job: Job) -> str:
    return job.name if len(job.elements) == 1 else f"{job.name} x {len(job.elements)}"
