"""Recipe + what is on disk -> the jobs that are missing, with their dependencies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reprokit.campaign.cells import all_cells, by_step, lost_cells, missing_cells
from reprokit.campaign.collect import collect
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources
from reprokit.errors import UserError
from reprokit.recipe.schema import Recipe
from reprokit.records.files import DamagedFileError
from reprokit.records.record import read_results
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory

HERE = Resources(hours=24.0)  # of the prepare stage, which runs where the command was typed


@dataclass(frozen=True)
class Workspace:
    """The folders that a campaign works in: `runs/`, `results/` and `figures/` below `root`."""

    root: Path

    @property
    def results(self) -> Path:
        return self.root / "results"

    @property
    def figures(self) -> Path:
        return self.root / "figures"

    def run(self, name: str) -> RunDirectory:
        return RunDirectory(self.root / "runs" / name)


def plan(
    workspace: Workspace,
    recipe: Recipe,
    profile: ClusterProfile,
    stages: Sequence[str],
    functions: Mapping[str, Callable[..., None]],
    figures_current: bool,
) -> list[Job]:
    """The jobs that are not done yet, in an order in which each comes after those that it waits for.

    Args:
        stages: the stages that may run.
        functions: what each stage calls.
        figures_current: whether the figures were drawn from the results as they are now.

    Raises:
        UserError: a stage needs what the prepare stage makes, and `stages` leaves that out.
    """
    run = workspace.run(recipe.name)
    jobs: list[Job] = []

    def add(name: str, elements: tuple[tuple[Any, ...], ...], resources: Resources, **options: Any) -> None:
        jobs.append(Job(recipe.name, name, functions[name], elements, resources, **options))

    to_train = "train" in stages and not run.training_complete.exists()
    cells = _cells_to_evaluate(run, recipe, to_train) if "evaluate" in stages else []
    is_prepared = run.is_prepared(recipe.evaluation.benchmarks)
    if (to_train or cells) and "prepare" not in stages and not is_prepared:
        raise UserError(f"run {recipe.name} is not prepared yet: add prepare to stages={','.join(stages)}")
    if "prepare" in stages and (to_train or cells or not is_prepared):
        add("prepare", ((run.root,),), HERE, description="base model, tokenizer, tokens, problems")
    if to_train:
        add("train", ((run.root,),), profile.train, after=("prepare",), description=_describe_training(run, recipe))
    if cells:
        groups = by_step(cells, profile.checkpoints_per_element)
        elements = tuple((run.root, group) for group in groups)
        add("evaluate", elements, profile.evaluate, after=("prepare", "train"), description=_describe(cells))
    if "collect" in stages and (jobs or not _is_collected(workspace, recipe)):
        # What is missing is said in the collected file, so collection runs after failures too.
        options = {"after": ("train", "evaluate"), "needs_success": False}
        add("collect", ((run.root, workspace.results),), profile.collect, description="results/*.json", **options)
    if "figures" in stages and (jobs or not figures_current):
        arguments = ((workspace.results, workspace.figures),)
        add("figures", arguments, profile.collect, after=("collect",), description="figures/")
    return jobs


def _cells_to_evaluate(run: RunDirectory, recipe: Recipe, training_planned: bool) -> list[Cell]:
    """Missing cells whose checkpoint is there or will be; a training makes those after its first step anew."""
    trained = run.resume_step() if training_planned else math.inf
    wanted = set(missing_cells(run, recipe)) - set(lost_cells(run, recipe, trained))
    return [cell for cell in all_cells(recipe) if cell.step > trained or cell in wanted]


def _describe_training(run: RunDirectory, recipe: Recipe) -> str:
    start = run.resume_step()
    left = [step for step in recipe.training.checkpoint_steps if step > start]
    resumed = f"from step {start}, " if start else ""
    return f"{resumed}checkpoints at {_steps(left)}" if left else f"{resumed}no checkpoint left to save"


def _describe(cells: Sequence[Cell]) -> str:
    benchmarks = sorted({cell.benchmark for cell in cells})
    return f"{_steps(sorted({cell.step for cell in cells}))} on {', '.join(benchmarks)}"


def _steps(steps: Sequence[int]) -> str:
    return f"steps {', '.join(str(step) for step in steps)}"


def _is_collected(workspace: Workspace, recipe: Recipe) -> bool:
    """Whether `results/<run>.json` says what the run folder says."""
    path = workspace.results / f"{recipe.name}.json"
    try:
        return path.exists() and read_results(path) == collect(workspace.run(recipe.name), recipe)
    except DamagedFileError:
        return False
