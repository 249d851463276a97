"""Which pieces of a run are missing: the truth is the files on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence

from reprokit.evaluation.wanted import wanted
from reprokit.recipe import evaluated_steps
from reprokit.recipe.schema import Recipe, Source
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import is_generated


def all_cells(recipe: Recipe) -> list[Cell]:
    """Every cell that the recipe asks for, in order of steps; step 0 is the base."""
    return [Cell(step, benchmark) for step in evaluated_steps(recipe) for benchmark in recipe.evaluation.benchmarks]


def missing_cells(run: RunDirectory, recipe: Recipe) -> list[Cell]:
    """Cells without a result of the recipe's sampling settings, problems and judges."""
    if not run.has_evaluated():
        return all_cells(recipe)
    needed = {name: wanted(run, recipe, name) for name in recipe.evaluation.benchmarks}
    return [cell for cell in all_cells(recipe) if not needed[cell.benchmark].has_result(run, cell)]


def ungenerated_cells(run: RunDirectory, recipe: Recipe) -> list[Cell]:
    """Cells without a result that lack samples, too, of the recipe's settings and problems."""
    if not run.has_evaluated():
        return all_cells(recipe)
    needed = {name: wanted(run, recipe, name) for name in recipe.evaluation.benchmarks}
    return [
        cell
        for cell in missing_cells(run, recipe)
        if needed[cell.benchmark].items is None or not is_generated(run, cell, needed[cell.benchmark].settings)
    ]


def lost_cells(run: RunDirectory, recipe: Recipe, trained: float = math.inf) -> list[Cell]:
    """Cells that cannot be generated any more: their checkpoint is not there or not complete, nor will it be.

    `trained`: the step up to which no training will save checkpoints; the base and what others have published can
    always be had again.
    """
    if recipe.source is Source.published:
        return []
    missing = [cell for cell in ungenerated_cells(run, recipe) if 0 < cell.step <= trained]
    gone = {step for step in {cell.step for cell in missing} if run.manifest(step) is None}
    return [cell for cell in missing if cell.step in gone]


def cells_to_generate(run: RunDirectory, recipe: Recipe, trained: float) -> list[Cell]:
    """Cells without samples whose checkpoint is there or will be; a training makes those after `trained` anew."""
    without = set(ungenerated_cells(run, recipe)) - set(lost_cells(run, recipe, trained))
    return [cell for cell in all_cells(recipe) if cell.step > trained or cell in without]


def cells_to_score(run: RunDirectory, recipe: Recipe, generated: Sequence[Cell]) -> list[Cell]:
    """Cells without a result that have their samples, or will have them once `generated` are there."""
    missing, without = set(missing_cells(run, recipe)), set(ungenerated_cells(run, recipe))
    planned = set(generated)
    return [cell for cell in all_cells(recipe) if cell in planned or (cell in missing and cell not in without)]


def by_step(cells: Sequence[Cell], steps_per_group: int) -> list[list[Cell]]:
    """Cells in groups of `steps_per_group` checkpoints: the elements of the evaluation array."""
    steps = sorted({cell.step for cell in cells})
    chunks = [steps[start : start + steps_per_group] for start in range(0, len(steps), steps_per_group)]
    return [[cell for cell in cells if cell.step in chunk] for chunk in chunks]
