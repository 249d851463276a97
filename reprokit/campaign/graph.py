"""Recipe + what is on disk -> the jobs that are missing, with their dependencies."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reprokit.campaign import engines
from reprokit.campaign.cells import by_step, cells_to_generate, cells_to_score
from reprokit.campaign.collect import collect
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources, Scheduler
from reprokit.errors import UserError
from reprokit.evaluation.judges import sources
from reprokit.recipe import evaluated_steps
from reprokit.recipe.judges import judges_of
from reprokit.recipe.schema import Recipe, Source
from reprokit.records.details import read_details
from reprokit.records.files import DamagedFileError
from reprokit.records.record import read_results
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory

BACKFILL = "backfill"
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
    without: AbstractSet[int] = frozenset(),
    only: AbstractSet[Cell] | None = None,
) -> list[Job]:
    """The jobs that are not done yet, in an order in which each comes after those that it waits for.

    Args:
        stages: the stages that may run.
        functions: what each stage calls.
        figures_current: whether the figures were drawn from the results as they are now.
        without: steps that are not evaluated.
        only: the cells that are; None: all.

    Raises:
        UserError: a stage needs what the prepare stage makes, and `stages` leaves that out; or no engine fits.
    """
    run = workspace.run(recipe.name)
    jobs: list[Job] = []

    def add(name: str, elements: tuple[tuple[Any, ...], ...], resources: Resources, **options: Any) -> None:
        jobs.append(Job(recipe.name, name, functions[name], elements, resources, **options))

    to_train = "train" in stages and recipe.source is Source.training and not run.training_complete.exists()
    trained = run.resume_step() if to_train else math.inf
    cells = cells_to_generate(run, recipe, trained) if "evaluate" in stages else []
    cells = [cell for cell in cells if cell.step not in without and (only is None or cell in only)]
    given = {0, *evaluated_steps(recipe)} if recipe.source is Source.published else {0}
    is_prepared = run.is_prepared(recipe.evaluation.benchmarks, recipe.source is Source.training, given)
    is_prepared = is_prepared and sources.is_prepared(run, recipe)
    if (to_train or cells) and "prepare" not in stages and not is_prepared:
        raise UserError(f"run {recipe.name} is not prepared yet: add prepare to stages={','.join(stages)}")
    if "prepare" in stages and (to_train or cells or not is_prepared):
        add("prepare", ((run.root,),), HERE, description="base model, tokenizer, tokens, problems, judges")
    if to_train:
        add("train", ((run.root,),), profile.train, after=("prepare",), description=_describe_training(run, recipe))
    if cells:
        groups = by_step(cells, profile.checkpoints_per_element)
        engine = (engines.gpus_per_engine(recipe, profile), engines.longest_sequence(recipe))
        elements = tuple((run.root, group, *engine) for group in groups)
        add("evaluate", elements, profile.evaluate, after=("prepare", "train"), description=_describe(cells))
    unscored = cells_to_score(run, recipe, cells)
    # What was not made is said where it is missed, so that these run after failures too.
    anyway = {"needs_success": False}
    judged = [cell for cell in unscored if judges_of(cell.benchmark)]
    if "judge" in stages and judged:
        engines.check_judges(recipe, profile)
        resources = replace(profile.evaluate, nodes=1)
        add("judge", ((run.root,),), resources, after=("evaluate",), description=_describe(judged), **anyway)
    if "score" in stages and unscored:
        options = {"after": ("evaluate", "judge"), "description": _describe(unscored)}
        add("score", ((run.root,),), profile.score, **options, **anyway)
    if "collect" in stages and (jobs or not _is_collected(workspace, recipe)):
        options = {"after": ("train", "evaluate", "judge", "score"), "description": "results/*.json"}
        add("collect", ((run.root, workspace.results),), profile.collect, **options, **anyway)
    if "figures" in stages and (jobs or not figures_current):
        arguments = ((workspace.results, workspace.figures),)
        add("figures", arguments, profile.collect, after=("collect",), description="figures/", **anyway)
    return jobs


def with_backfill(
    jobs: Sequence[Job],
    workspace: Workspace,
    recipe: Recipe,
    profile: ClusterProfile,
    functions: Mapping[str, Callable[..., None]],
) -> list[Job]:
    """The jobs, and where any of them goes to Slurm, the one that submits after them what is still missing."""
    waits_for = tuple(job.name for job in jobs if job.name != "prepare")
    if profile.scheduler is not Scheduler.slurm or not waits_for:
        return list(jobs)
    return [*jobs, backfill_job(waits_for, workspace, recipe, profile, functions)]


def backfill_job(
    waits_for: tuple[str, ...],
    workspace: Workspace,
    recipe: Recipe,
    profile: ClusterProfile,
    functions: Mapping[str, Callable[..., None]],
) -> Job:
    """The job that submits what is missing after those that it waits for."""
    elements = ((workspace.run(recipe.name).root, workspace.root),)
    does = "submits what is missing then"
    return Job(recipe.name, BACKFILL, functions[BACKFILL], elements, profile.collect, waits_for, False, does, True)


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
    """Whether `results/<run>.json` says what the run folder says, and its details are there."""
    path = workspace.results / f"{recipe.name}.json"
    try:
        if not path.exists() or read_details(workspace.results, recipe.name) is None:
            return False
        return read_results(path) == collect(workspace.run(recipe.name), recipe)
    except DamagedFileError:
        return False
