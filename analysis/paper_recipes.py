"""The recipes of the paper's runs: which checkpoints it has, and how they were trained."""

from __future__ import annotations

from functools import cache

from reprokit.recipe import LoadedRecipe, Recipe, load
from reprokit.recipe.load import matching_names
from reprokit.records.paper import DEFAULT


@cache
def paper_recipes() -> dict[str, LoadedRecipe]:
    """The recipes in `recipes/paper/`, by run name, sorted.

    Raises:
        RecipeError: one of them cannot be used.
    """
    loaded = [load(name) for name in matching_names("paper/*")]
    return {one.recipe.name: one for one in sorted(loaded, key=lambda one: one.recipe.name)}


def default_recipe() -> Recipe:
    """One of those that train with the paper's default setting, in which all of these are alike."""
    return next(one.recipe for name, one in paper_recipes().items() if name.endswith(DEFAULT))
