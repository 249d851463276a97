"""What a launch of several runs tells the person who typed it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from reprokit.campaign.cost import Cost, rounded, total
from reprokit.campaign.disk import in_words
from reprokit.campaign.report import print_cost
from reprokit.cluster.job import Job
from reprokit.recipe import evaluated_steps
from reprokit.recipe.schema import Recipe


@dataclass(frozen=True)
class Planned:
    """One run of several: what it is, what of it is missing, and what that will cost."""

    recipe: Recipe
    jobs: Sequence[Job]
    cost: Cost

    @property
    def cells(self) -> int:
        return len(evaluated_steps(self.recipe)) * len(self.recipe.evaluation.benchmarks)


def print_selection(cluster: str, planned: Sequence[Planned], beside: bool, console: Console) -> None:
    """One line for every run, and the sums.

    Args:
        beside: whether the runs go on at the same time.
    """
    console.print(f"{len(planned)} runs on cluster={cluster}")
    table = Table(box=None, header_style="bold")
    for column in ("run", "steps x benchmarks", "to do", "elements", "GPU-hours", "disk"):
        table.add_column(column, justify="left" if column in ("run", "to do") else "right")
    for run in planned:
        shape = f"{len(evaluated_steps(run.recipe))} x {len(run.recipe.evaluation.benchmarks)}"
        todo = "nothing is missing"
        if run.jobs:
            todo = ", ".join(job.name for job in run.jobs if job.name in ("train", "evaluate", "judge")) or "the rest"
        hours = rounded(sum(run.cost.gpu_hours.values())) if run.cost.gpu_hours else ""
        disk = in_words(run.cost.disk.run_folder) if run.jobs else ""
        table.add_row(run.recipe.name, shape, todo, str(_elements(run)), hours, disk)
    console.print(table)
    cells, jobs = sum(run.cells for run in planned), sum(len(run.jobs) for run in planned)
    elements = sum(map(_elements, planned))
    console.print(f"together {len(planned)} runs, {cells:,} cells; {jobs:,} jobs with {elements:,} elements to do")
    print_cost(total((run.cost for run in planned), beside), console)


def _elements(run: Planned) -> int:
    return sum(len(job.elements) for job in run.jobs)
