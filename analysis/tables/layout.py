"""Which rows and columns each table has, and what its heads say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from analysis.columns import (
    ALPACA,
    HALUEVAL,
    IFEVAL,
    NINE_COLUMNS,
    OTHER_REWARDS,
    REASONING,
    SAFETY_COLUMNS,
    TRUTHFUL,
    TRUTHFULQA,
    Column,
)
from analysis.holdings import BASE_STEP, Library
from analysis.paper_recipes import default_recipe, paper_recipes
from analysis.published import measured_run
from reprokit.recipe import Recipe, row_count
from reprokit.records.paper import TABLES, TABLES_OF_VERSION_2, base_of
from reprokit.records.record import Origin

APPENDIX_COLUMNS = (*REASONING, IFEVAL, HALUEVAL, TRUTHFUL, TRUTHFULQA, ALPACA, *OTHER_REWARDS)
ORIGINS: tuple[Origin, ...] = ("measured", "reported")
_KNOWN_COLUMNS = {*APPENDIX_COLUMNS, *SAFETY_COLUMNS}


@dataclass(frozen=True)
class Line:
    """One row before its cells are filled."""

    heads: tuple[str, ...]
    run: str
    step: int


@dataclass(frozen=True)
class Layout:
    """A table before its cells are filled; `number` is None for the table of a run that the paper does not have."""

    number: str | None
    name: str
    title: str
    caption: str
    heads: tuple[str, ...]
    lines: tuple[Line, ...]
    columns: tuple[Column, ...]
    lengths: bool = False
    note: str = ""


def per_step_runs() -> dict[str, str]:
    """The runs that have a table of their own in the paper, and its number."""
    return {shown.runs[0]: number for number, shown in TABLES.items() if len(shown.runs) == 1}


def paper_layout(library: Library, number: str) -> Layout:
    """Table `number` of the paper, one of `TABLES`."""
    return _SUMMARIES[number]() if number in _SUMMARIES else _per_step(library, number)


def run_layout(library: Library, run: str) -> Layout:
    """The table of a run that the paper's tables do not have: every step, every column that it has a headline in."""
    return Layout(
        number=None,
        name=run,
        title=f"Run {run}",
        caption=f"{settings_of(library, run)}. Every evaluated checkpoint.",
        heads=("Step",),
        lines=_steps(library, run, base=True, steps=()),
        columns=tuple(shown_columns(library, run)),
        lengths=True,
    )


def shown_columns(library: Library, run: str, origins: Sequence[Origin] = ORIGINS) -> list[Column]:
    """Columns that a run has a headline in, and those of the paper, in the order of its appendix."""
    found = {column for origin in origins for column in library.columns(run, origin)}
    order = {column: place for place, column in enumerate(APPENDIX_COLUMNS)}
    shown = [column for column in found if column in _KNOWN_COLUMNS or _is_headline(library, run, column)]
    return sorted(shown, key=lambda column: (order.get(column, len(order)), column.place))


def _is_headline(library: Library, run: str, column: Column) -> bool:
    steps = (BASE_STEP, *(step for origin in ORIGINS for step in library.steps(run, origin)))
    found = (library.best(run, step, column, origin) for step in steps for origin in ORIGINS)
    return any(entry.record.headline for entry in found if entry)


def _steps(library: Library, run: str, base: bool, steps: tuple[int, ...]) -> tuple[Line, ...]:
    """The base and those steps, and any other that has a score or should have one."""
    measured = measured_run(library, run)
    known = {*steps, *library.steps(measured, "measured"), *library.steps(run, "reported")}
    known |= {cell.step for cell in library.missing(measured)} - {BASE_STEP}
    first = (Line(("base",), run, BASE_STEP),) if base else ()
    return (*first, *(Line((str(step),), run, step) for step in sorted(known)))


def _per_step(library: Library, number: str) -> Layout:
    shown = TABLES[number]
    (run,) = shown.runs
    recipe = paper_recipes()[run].recipe
    steps = tuple(step for step in recipe.training.checkpoint_steps if step not in shown.omitted)
    return Layout(
        number=number,
        name=f"table_{number}",
        title=f"Table {number}: {_subject(recipe)}, every checkpoint",
        caption=f"{_training_of(recipe)}. Run {run}.{_in_version_2(number)}",
        heads=("Step",),
        lines=_steps(library, run, shown.base, steps),
        columns=(*APPENDIX_COLUMNS, *_more_columns(library, run)),
        lengths=True,
        note=shown.note,
    )


def _in_version_2(number: str) -> str:
    later = TABLES_OF_VERSION_2.get(number)
    return f" Table {later} in version 2." if later else ""


def _more_columns(library: Library, run: str) -> list[Column]:
    """What is known of a run of the paper and its base, or of its published checkpoints, beyond the paper's columns."""
    names = (run, measured_run(library, run), library.base(run) or run)
    found = (column for name in names for column in shown_columns(library, name))
    return [column for column in dict.fromkeys(found) if column not in APPENDIX_COLUMNS]


def _subject(recipe: Recipe) -> str:
    """Model and data, and in what the training differs from the paper's default setting."""
    usual = _training_of(default_recipe()).split(", ")
    other = [words for words in _training_of(recipe).split(", ") if words not in usual]
    return ", ".join((f"{recipe.model.name} on {recipe.data.name}", *other))


def _training_of(recipe: Recipe) -> str:
    training = recipe.training
    return _words(training.epochs, training.global_batch_size, training.learning_rate, training.schedule.value)


def settings_of(library: Library, run: str) -> str:
    """For example `Qwen3-4B-Base on Math-CoT-20k, 8 epochs, batch size 256, learning rate 5e-05, cosine schedule`."""
    record = library.settings(run)
    if record is None:
        return "nothing is recorded"
    training = _words(record.epochs, record.batch_size, record.learning_rate, record.schedule)
    if not training and not record.dataset:
        is_trained = any(library.steps(run, origin) for origin in ORIGINS)
        return f"{record.model}, {'how it was trained is not recorded' if is_trained else 'untrained'}"
    start = f"{record.model} on {record.dataset}" if record.dataset else record.model
    return ", ".join(filter(None, (start, training)))


def _words(epochs: float | None, batch: int | None, rate: float | None, schedule: str | None) -> str:
    parts = [
        (epochs, "{:g} epoch" if epochs == 1 else "{:g} epochs"),
        (batch, "batch size {}"),
        (rate, "learning rate {:g}"),
        (schedule, "{} schedule"),
    ]
    return ", ".join(words.format(value) for value, words in parts if value is not None)


def _last(run: str) -> int:
    return max(paper_recipes()[run].recipe.training.checkpoint_steps)


def _fixed_budget() -> Layout:
    lines = []
    for place, run in enumerate(TABLES["1"].runs, start=1):
        recipe = paper_recipes()[run].recipe
        numbers = (row_count(recipe), recipe.training.global_batch_size, recipe.training.epochs, _last(run))
        lines.append(Line((f"Setting {place}", *map(str, numbers)), run, _last(run)))
    title = "Table 1: repeated exposure against one pass, with the same number of steps"
    rate = paper_recipes()[lines[0].run].recipe.training.learning_rate
    caption = f"{base_of(lines[0].run)}, learning rate {rate:g}, last checkpoint."
    return _summary("1", title, caption, ("Setting", "Examples", "Batch size", "Epochs", "Steps"), lines)


def _quality_and_structure() -> Layout:
    lines: list[Line] = []
    for run in TABLES["2"].runs:
        recipe = paper_recipes()[run].recipe
        if not lines or lines[-1].heads[0] != recipe.model.name:
            lines.append(Line((recipe.model.name, "base"), run, BASE_STEP))
        lines.append(Line((recipe.model.name, recipe.data.name), run, _last(run)))
    title = "Table 2: data of different quality and structure, three models"
    return _summary("2", title, "Base models and last checkpoints.", ("Model", "Data"), lines)


def _short_training() -> Layout:
    runs = TABLES["4"].runs
    lines = [Line(("base", "", ""), runs[0], BASE_STEP)]
    for run in runs:
        training = paper_recipes()[run].recipe.training
        lines.append(Line((f"{training.learning_rate:g}", str(training.epochs), str(_last(run))), run, _last(run)))
    recipe = paper_recipes()[runs[0]].recipe
    caption = f"{recipe.model.name} on {recipe.data.name}, last checkpoint."
    title = "Table 4: short training and a smaller learning rate"
    return _summary("4", title, caption, ("Learning rate", "Epochs", "Step"), lines)


def _bases() -> Layout:
    lines = [Line((base_of(run) or run,), run, BASE_STEP) for run in TABLES["5"].runs]
    caption = f"Step 0 of every run.{_in_version_2('5')}"
    return _summary("5", "Table 5: the base models", caption, ("Base model",), lines, APPENDIX_COLUMNS)


def _summary(
    number: str,
    title: str,
    caption: str,
    heads: tuple[str, ...],
    lines: list[Line],
    columns: tuple[Column, ...] = NINE_COLUMNS,
) -> Layout:
    return Layout(number, f"table_{number}", title, caption, heads, tuple(lines), columns, note=TABLES[number].note)


_SUMMARIES: dict[str, Callable[[], Layout]] = {
    "1": _fixed_budget,
    "2": _quality_and_structure,
    "4": _short_training,
    "5": _bases,
}
