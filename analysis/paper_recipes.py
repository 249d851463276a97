"""The recipes of the paper's runs: which checkpoints it has, and how they were trained."""

from __future__ import annotations

from functools import cache

from reprokit.recipe import LoadedRecipe, load
from reprokit.recipe.load import matching_names


@cache
def paper_recipes() -> dict[str, LoadedRecipe]:
    """The recipes in `recipes/paper/`, by run name, sorted.

    Raises:
        RecipeError: one of them cannot be used.
    """
    loaded = [load(name) for name in matching_names("paper/*")]
    return {one.recipe.name: one for one in sorted(loaded, key=lambda one: one.recipe.name)}
