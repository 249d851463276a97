"""Table 3: what all training runs of the paper share and what differs, read off their recipes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from enum import Enum
from pathlib import Path
from typing import Any

from analysis.paper_recipes import paper_recipes
from analysis.tables.model import Cell, Note, Piece, Row, Source, Table
from reprokit.recipe import Recipe, row_count, total_steps
from reprokit.recipe.load import RECIPES
from reprokit.records.files import sha256_of_file
from reprokit.records.paper import TABLES

NUMBER = "3"
SHARED, DIFFERENT, TEMPLATE = "The same in every run", "Not the same in every run", "Prompt template"
OWN_TEMPLATE = "the tokenizer's own"
NOTES = (
    "Read off recipes/paper/, not transcribed: what the recipes say is what a launch does.",
    "The wording of the user turn is no setting: it stands in the column message of the training rows. Rows that are "
    "built here get it from reprokit/data/prompts.py. A response ends with the EOS token of the tokenizer.",
    "With official arithmetic the token means of the rows of a micro-batch are summed over the micro-batches of a GPU.",
)


def _template(recipe: Recipe) -> str:
    path = recipe.model.chat_template
    return f"recipes/models/{Path(path).name}" if path else OWN_TEMPLATE


SETTINGS: dict[str, Callable[[Recipe], Any]] = {
    "Examples": row_count,
    "Longest row (tokens)": lambda recipe: recipe.data.max_length,
    "Learning rate": lambda recipe: recipe.training.learning_rate,
    "Schedule": lambda recipe: recipe.training.schedule,
    "Warm-up (share of steps)": lambda recipe: recipe.training.warmup_fraction,
    "Global batch size": lambda recipe: recipe.training.global_batch_size,
    "Micro-batch (rows)": lambda recipe: recipe.training.micro_batch_size,
    "Epochs": lambda recipe: recipe.training.epochs,
    "Steps": total_steps,
    "Checkpoints at steps": lambda recipe: recipe.training.checkpoint_steps,
    "AdamW betas": lambda recipe: recipe.training.betas,
    "AdamW epsilon": lambda recipe: recipe.training.epsilon,
    "Weight decay": lambda recipe: recipe.training.weight_decay,
    "Largest gradient norm": lambda recipe: recipe.training.max_gradient_norm,
    "Arithmetic": lambda recipe: recipe.training.arithmetic,
    "Precision": lambda recipe: recipe.training.precision,
    "Gradient checkpointing": lambda recipe: recipe.training.gradient_checkpointing,
}


def hyperparameters() -> Table:
    """Table 3; needs no results.

    Raises:
        RecipeError: a recipe of the paper cannot be used.
    """
    wanted = {run for shown in TABLES.values() for run in shown.runs}
    recipes = {run: loaded.recipe for run, loaded in paper_recipes().items() if run in wanted}
    values = {title: {run: _words(read(one)) for run, one in recipes.items()} for title, read in SETTINGS.items()}
    rows = [
        row for title, found in values.items() if len(set(found.values())) == 1 for row in _rows(title, found, SHARED)
    ]
    rows += [
        row for title, found in values.items() if len(set(found.values())) > 1 for row in _rows(title, found, DIFFERENT)
    ]
    templates = {run: _template(recipe) for run, recipe in recipes.items()}
    rows += _rows("Chat template", templates, TEMPLATE)
    rows += _template_texts(set(templates.values()))
    return Table(
        name=f"table_{NUMBER}",
        title=f"Table {NUMBER}: training settings and prompt template",
        caption=f"Settings of the paper's {len(recipes)} training runs.",
        header=("Setting", "Value", "Runs"),
        rows=tuple(rows),
        notes=tuple(Note("", text) for text in NOTES),
        made_from=tuple(_sources(recipes)),
        number=NUMBER,
    )


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(_words, value))
    if isinstance(value, Enum):
        return str(value.value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _rows(title: str, found: dict[str, str], section: str) -> list[Row]:
    """A row per value, the most frequent one first; its runs are named unless they are most of all."""
    counts = Counter(found.values()).most_common()
    rows = []
    for place, (value, count) in enumerate(counts):
        named = ", ".join(run for run, own in found.items() if own == value)
        runs = f"all {count}" if len(counts) == 1 else f"the other {count}" if place == 0 else named
        rows.append(_row(title if place == 0 else "", value, runs, section))
    return rows


def _row(title: str, value: str, runs: str, section: str) -> Row:
    return Row((title,), (Cell((Piece(value),)), Cell((Piece(runs),))), section)


def _template_texts(templates: set[str]) -> Iterator[Row]:
    """The templates that recipes bring along; line ends and what stands around them mean nothing in them."""
    for name in sorted(templates - {OWN_TEMPLATE}):
        text = " ".join((RECIPES.parent / name).read_text(encoding="utf-8").split())
        yield _row(name, text, "", TEMPLATE)


def _sources(recipes: dict[str, Recipe]) -> Iterator[Source]:
    """Every file that a recipe took a value from."""
    places = {place for run in recipes for place in paper_recipes()[run].origins.values()}
    names = {place.rpartition(":")[0] for place in places if place.startswith(f"{RECIPES.name}/")}
    names |= {_template(recipe) for recipe in recipes.values()} - {OWN_TEMPLATE}
    return (Source(name, sha256_of_file(RECIPES.parent / name)) for name in sorted(names))
