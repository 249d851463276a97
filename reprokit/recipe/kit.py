"""The recipes folder as a whole: what is in it, and whether all of it is valid."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reprokit.errors import UserError
from reprokit.recipe.checks import check_ranges
from reprokit.recipe.compose import Composer, fragment_names
from reprokit.recipe.load import RECIPES, find_recipe, folded, load, matching_names, recipe_names
from reprokit.recipe.problems import RecipeError
from reprokit.recipe.schema import Recipe
from reprokit.recipe.tree import Origin
from reprokit.recipe.typed import MISSING_VALUE, NO_VALUE, convert, resolve, with_defaults

COST = re.compile(r"^# About (\S+) GPU-hours on (\w+)", re.M)


def select(pattern: str | None) -> list[str]:
    """Recipes that a pattern with `*` or `?` means, as in `recipe=`, or else with `pattern` in the name; None for all.

    Raises:
        UserError: there is none.
    """
    names = recipe_names()
    if pattern is None:
        return names
    if set("*?") & set(pattern):
        found = matching_names(pattern)
    else:
        found = [name for name in names if pattern.lower() in name.lower()]
    if not found:
        raise UserError(f"no recipe has a name like {pattern}; valid: {', '.join(folded(names))}")
    return found


def purpose(name: str) -> str:
    """The first comment line of a recipe, without its `#`; "" if it does not begin with one."""
    line = find_recipe(name).read_text(encoding="utf-8-sig").partition("\n")[0].strip()
    return line.removeprefix("#").strip() if line.startswith("#") else ""


def stated_hours(name: str) -> str:
    """What the head of a recipe says of its cost, `1,000 on H200`; "" if nothing."""
    said = COST.search(find_recipe(name).read_text(encoding="utf-8-sig"))
    return f"{said[1]} on {said[2]}" if said else ""


@dataclass(frozen=True)
class Checked:
    """A recipe or fragment, and what is wrong with it: None if nothing is."""

    name: str
    is_fragment: bool
    error: RecipeError | None


def check(names: Sequence[str] = ()) -> list[Checked]:
    """Load recipes and fragments, given by name or file; none given: all of the recipes folder.

    Raises:
        RecipeError: one of `names` does not exist.
    """
    checked = []
    for name in names or fragment_names(RECIPES):
        path, composer = find_recipe(name), Composer(RECIPES)
        content = composer.file(path).value
        is_fragment = "name" not in content and not composer.problems
        error: RecipeError | None = None
        try:
            if is_fragment:
                _check_fragment(name, path, composer)
            else:
                load(name)
        except RecipeError as found:
            error = found
        checked.append(Checked(name, is_fragment, error))
    return checked


def _check_fragment(name: str, path: Path, composer: Composer) -> None:
    """The keys, types and ranges of a fragment, without what it leaves to the recipe.

    Raises:
        RecipeError: with every problem.
    """
    root, unresolved = resolve(with_defaults(Recipe, composer.file(path)))
    values, mistyped = convert(root, Origin(composer.place(path), path))
    ranges = [replace(problem, where=composer.place(path)) for problem in check_ranges(values)]
    left = (MISSING_VALUE, NO_VALUE)
    problems = [problem for problem in (*unresolved, *mistyped, *ranges) if problem.message not in left]
    if problems:
        raise RecipeError(name, problems, what="fragment")
