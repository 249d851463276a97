"""Tables of the paper and of every other run: reported and measured values, their difference, in any format."""

from __future__ import annotations

from collections.abc import Iterator

from analysis.holdings import Library
from analysis.published import measured_run
from analysis.tables.as_csv import csv
from analysis.tables.as_latex import latex
from analysis.tables.as_markdown import markdown
from analysis.tables.fill import fill
from analysis.tables.hyperparameters import NUMBER as HYPERPARAMETERS
from analysis.tables.hyperparameters import hyperparameters
from analysis.tables.layout import paper_layout, per_step_runs, run_layout
from analysis.tables.model import UNKNOWN, Cell, Note, Piece, Row, Source, Table, Values
from reprokit.errors import UserError
from reprokit.records.paper import TABLES, base_of

NUMBERS = tuple(sorted((*TABLES, HYPERPARAMETERS), key=int))

__all__ = [
    "Cell",
    "NUMBERS",
    "Note",
    "Piece",
    "Row",
    "Source",
    "Table",
    "UNKNOWN",
    "Values",
    "build",
    "build_all",
    "build_run",
    "csv",
    "latex",
    "markdown",
    "other_runs",
]


def build(library: Library, number: str) -> Table:
    """Table `number` of version 1 of the paper.

    Raises:
        UserError: the paper has no such table.
    """
    if number == HYPERPARAMETERS:
        return hyperparameters()
    if number not in TABLES:
        raise UserError(f"table={number}: the paper has no such table. Valid: {', '.join(NUMBERS)}")
    return fill(library, paper_layout(library, number))


def build_run(library: Library, run: str) -> Table:
    """The table of one run of `other_runs`: every step, and every column that it has a headline in."""
    return fill(library, run_layout(library, run))


def other_runs(library: Library) -> list[str]:
    """Runs with records that no table of the paper shows step by step, without bases that such a table begins with."""
    shown = {*per_step_runs(), *(measured_run(library, run) for run in per_step_runs())}
    others = [run for run in library.runs() if run not in shown]
    bases = {base_of(run) for run in shown} | {library.base(run) for run in others if library.base(run) != run}
    return [run for run in others if run not in bases]


def build_all(library: Library) -> Iterator[Table]:
    """The paper's tables by number, then those of other runs by name."""
    yield from (build(library, number) for number in NUMBERS)
    yield from (build_run(library, run) for run in other_runs(library))
