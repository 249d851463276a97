"""The run folder as seen by a launch: whose it is."""

from __future__ import annotations

import shutil

from reprokit.errors import UserError
from reprokit.recipe import LoadedRecipe, RecipeError, load_resolved
from reprokit.recipe.fixed import changes, fixed_settings
from reprokit.recipe.schema import Recipe, Source
from reprokit.records.files import write_text
from reprokit.records.run_directory import RunDirectory


def write_recipe(run: RunDirectory, loaded: LoadedRecipe) -> None:
    """Write `recipe.yaml`, resolved, with where each value came from: it is what the jobs read."""
    write_text(run.recipe, loaded.to_yaml())


def describe_conflict(run: RunDirectory, recipe: Recipe) -> str | None:
    """Why the run folder cannot go on with this recipe, None if it can; raises UserError when its own is damaged.

    Evaluation may change (what is missing is then filled in), and so may memory settings of the training; the rest of
    model, data and training may not, once anything was made with them.
    """
    changed = _changes(run, recipe)
    if not changed or not _has_made_anything(run, recipe):
        return None
    return "\n".join(
        [
            f"{run.root} was made with other settings:",
            *changed,
            "Give this run its own name (name=...), or move the folder away to start afresh.",
        ]
    )


def discard_other_preparation(run: RunDirectory, recipe: Recipe) -> None:
    """Remove what a preparation that failed left behind, if the recipe has other settings now."""
    if _changes(run, recipe) and not _has_made_anything(run, recipe):
        for folder in (run.tokenizer, run.data, run.checkpoint(0)):
            shutil.rmtree(folder, ignore_errors=True)


def _has_made_anything(run: RunDirectory, recipe: Recipe) -> bool:
    """Whether base model, tokenizer and tokens are all there, or a training has begun."""
    return run.is_prepared([], recipe.source is Source.training) or run.has_trained()


def _changes(run: RunDirectory, recipe: Recipe) -> list[str]:
    """One line per setting of model, data and training that differs from those of the run folder."""
    if not run.recipe.exists():
        return []
    try:
        before = load_resolved(run.recipe)
    except RecipeError as error:
        raise UserError(
            f"{run.recipe}, which says what this folder was made with, cannot be read.\n{error}\nIf the folder was "
            "made with the recipe that you launch, move that file away and launch again: it is written anew."
        ) from error
    return changes(fixed_settings(before), fixed_settings(recipe))
