"""What a run is: typed schema, loading, every error at once."""

from reprokit.recipe.derived import evaluated_steps, row_count, total_steps
from reprokit.recipe.load import LoadedRecipe, load, load_resolved, recipe_names
from reprokit.recipe.problems import Problem, RecipeError
from reprokit.recipe.schema import Recipe

__all__ = [
    "LoadedRecipe",
    "Problem",
    "Recipe",
    "RecipeError",
    "evaluated_steps",
    "load",
    "load_resolved",
    "recipe_names",
    "row_count",
    "total_steps",
]
