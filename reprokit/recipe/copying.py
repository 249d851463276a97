"""Copies of recipes to edit."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from reprokit.errors import UserError
from reprokit.recipe.compose import INCLUDE, with_suffix
from reprokit.recipe.kit import COST
from reprokit.recipe.load import RECIPES, find_recipe, load
from reprokit.recipe.problems import RecipeError
from reprokit.recipe.schema import Recipe
from reprokit.recipe.tree import Entry, Origin, leaves, parse

COMMAND = re.compile(r"\brecipe=\S+")
PATHS = {"path", "chat_template", "tokenizer", "prompt"}  # last parts of the keys that name local files


def copy(name: str, target: Path) -> None:
    """Write a copy of a recipe, comments included, whose run is named after its file.

    What the recipe names relative to its own folder is written so that the copy finds it too.

    Raises:
        UserError: `target` exists, is no .yaml file or in no folder, or is on the way of an include.
        RecipeError: no such recipe, or it has problems.
    """
    if target.suffix not in (".yaml", ".yml"):
        raise UserError(f"{target}: a recipe is a .yaml file; write {target}.yaml")
    if target.exists() or target.is_symlink():
        raise UserError(f"{target} is there already and is left as it is; choose another file")
    if not target.parent.is_dir():
        raise UserError(f"{target}: no such folder as {target.parent}; make it first")
    wanted = replace(load(name).recipe, name=target.stem)
    text = _edited(find_recipe(name), name, target)
    if _read_as(text, target) != wanted:
        remedy = f"write a recipe of your own that begins with include: [{name.removesuffix('.yaml')}]"
        raise UserError(f"a copy of {name} would not mean the same there; {remedy}")
    with target.open("x", encoding="utf-8") as stream:
        stream.write(text)


def _read_as(text: str, target: Path) -> Recipe | None:
    """The recipe that `text` would be in `target`; None if it would not be valid."""
    handle, draft = tempfile.mkstemp(dir=target.parent, prefix=f".{target.stem}.", suffix=".yaml", text=True)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            stream.write(text)
        return load(draft).recipe
    except RecipeError:
        return None
    finally:
        os.unlink(draft)


def _edited(path: Path, name: str, target: Path) -> str:
    """The text of the recipe `path` with another run name, another command and no names relative to its folder."""
    lines = path.read_text(encoding="utf-8-sig").splitlines()
    root, _ = parse("\n".join(lines), lambda line: Origin(str(line)))
    for entry, absolute in _relative(root, path.parent, target.absolute()):
        line = int(entry.origin.place) - 1
        lines[line] = lines[line].replace(entry.text, absolute)
    if own := root.value.get("name"):
        line = int(own.origin.place) - 1
        lines[line] = re.sub(r"^name:.*", f"name: {target.stem}", lines[line])
    else:
        lines.append(f"name: {target.stem}")
    lines = [COMMAND.sub(f"recipe={target}", line) if line.startswith("#") else line for line in lines]
    lines = [line for line in lines if not COST.match(line)]  # true of the original only
    note = f"# A copy of {name} to edit. All keys and values: python -m reprokit.recipes show {target}"
    at = next((number for number, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join([*lines[:at], note, *lines[at:], ""])


def _relative(root: Entry, folder: Path, target: Path) -> Iterator[tuple[Entry, str]]:
    """Entries that mean a file in `folder`, and how to write it in `target`, where they would mean another or none."""
    include = root.value.get(INCLUDE)
    for item in include.value if include else ():
        file = with_suffix(os.path.expanduser(item.value))
        meant = _first(folder / file, RECIPES / file)
        there = target if target.parent / file == target else _first(target.parent / file, RECIPES / file)
        if there != meant:
            yield item, str(meant)
    for keys, leaf in leaves(root):
        if keys[-1] in PATHS and isinstance(leaf.value, str) and not os.path.isabs(leaf.value):
            beside = folder / os.path.expandvars(os.path.expanduser(leaf.value))
            if beside.exists():
                yield leaf, str(beside)


def _first(*places: Path) -> Path:
    """The file that `include` finds: the first of `places` that is there, of which one must be."""
    return next(place.resolve() for place in places if place.is_file())
