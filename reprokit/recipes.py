"""python -m reprokit.recipes ls [PATTERN] | show NAME [key=value ...] | copy NAME FILE.yaml | validate [NAME ...]

ls         the recipes of the kit, those of a pattern as recipe= takes it ('paper/*'), or with PATTERN in their name
show       a recipe as it is run: every key with its value and where it comes from, includes written out
copy       a copy of a recipe to edit; nothing is overwritten
validate   loads every recipe and fragment, or those named, and reports all problems of all of them

NAME is a file of recipes/ without .yaml, or the path of a .yaml file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from reprokit.errors import UserError
from reprokit.recipe import RecipeError, load, total_steps
from reprokit.recipe.copying import copy
from reprokit.recipe.kit import check, purpose, select, stated_hours
from reprokit.recipe.problems import one_line
from reprokit.words import run, split

WIDTH = 240  # columns of the table where the output is no terminal
PAPER = "paper/"
LAST = "for"
HEADINGS = ("recipe", "model", "data set", "lr / epochs / batch", "steps", "GPU-hours", LAST)
BETWEEN = 4  # characters of a table beside each column
SHORTEST = 30  # characters of the last column that are worth showing


def ls(names: Sequence[str]) -> None:
    """Print a table of recipes, with as many of its columns as the terminal has room for."""
    rows = [_row(name) for name in names]
    console = Console(width=None if sys.stdout.isatty() else WIDTH, markup=False, highlight=False)
    columns = _columns(rows, console.width)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading, wide in columns.items():
        table.add_column(heading, no_wrap=True, overflow="ellipsis", width=wide)
    for row in rows:
        table.add_row(*(row[heading] for heading in columns))
    console.print(table)
    console.print("GPU-hours: the estimate at the head of a recipe; a dry run tells those on a cluster of yours.")


def _row(name: str) -> dict[str, str]:
    """Heading -> text of one recipe; one that is not valid has the number of its problems."""
    try:
        recipe = load(name).recipe
    except RecipeError as error:
        wrong = f"{len(error.problems)} problems: python -m reprokit.recipes validate {name}"
        return {heading: name if heading == "recipe" else "" for heading in HEADINGS} | {LAST: wrong}
    training = recipe.training
    trained = f"{training.learning_rate:g} / {training.epochs} / {training.global_batch_size}"
    steps = str(total_steps(recipe) or "")
    texts = (name, recipe.model.name, recipe.data.name, trained, steps, stated_hours(name), purpose(name))
    return dict(zip(HEADINGS, map(one_line, texts), strict=True))


def _columns(rows: Sequence[dict[str, str]], width: int) -> dict[str, int]:
    """The columns that fit beside each other, and their widths: a name says most of what is left out."""
    wide = {heading: max(len(heading), *(len(row[heading]) for row in rows)) for heading in HEADINGS}
    kept, left = {"recipe": wide["recipe"]}, width - wide["recipe"] - BETWEEN
    for heading in ("steps", "GPU-hours", "lr / epochs / batch", "data set", "model", LAST):
        least = SHORTEST if heading == LAST else wide[heading]
        if least + BETWEEN <= left:
            kept[heading] = min(wide[heading], left - BETWEEN)
            left -= wide[heading] + BETWEEN
    return {heading: kept[heading] for heading in HEADINGS if heading in kept}


def show(name: str, overrides: Sequence[str]) -> None:
    """Print a resolved recipe as YAML."""
    split(overrides, __doc__)
    print(load(name, overrides).to_yaml(), end="")


def validate(names: Sequence[str]) -> None:
    """Load recipes and fragments, and print how many are valid.

    Raises:
        UserError: some are not; the message has every problem of every one.
    """
    started = time.monotonic()
    checked = check(names)
    wrong = [one.error for one in checked if one.error is not None]
    valid = [one for one in checked if one.error is None]
    paper = sum(one.name.startswith(PAPER) for one in valid)
    fragments = sum(one.is_fragment for one in valid)
    others = f"{len(valid) - paper - fragments} other recipes and {fragments} fragments valid"
    print(f"{paper} paper recipes valid, {others} ({time.monotonic() - started:.2f} s)")
    if wrong:
        raise UserError("\n".join([f"{len(wrong)} of {len(checked)} are not valid", *map(str, wrong)]))


def act(words: Sequence[str]) -> None:
    """Do what the words say.

    Raises:
        UserError: they say nothing that there is, or what they ask for fails.
    """
    match list(words):
        case ["ls"]:
            ls(select(None))
        case ["ls", pattern]:
            ls(select(pattern))
        case ["show", name, *overrides]:
            show(name, overrides)
        case ["copy", name, file]:
            copy(name, Path(file))
            print(f"{file} written. Look at it with python -m reprokit.launch recipe={file} dry_run=true")
        case ["validate", *names]:
            validate(names)
        case _:
            raise UserError(f"{' '.join(words) or 'nothing'} is not what this command takes.\n\n{__doc__}")


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: act(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
