"""What a table is, before it is Markdown, CSV, LaTeX or HTML."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from analysis.columns import Column
from analysis.completeness import Lack
from analysis.runs import Entry
from analysis.statistics import Difference

Kind = Literal["measured", "reported", "difference", "text", "unknown"]
Quantity = Literal["score", "change against base", "mean response tokens", "truncated fraction"]
UNKNOWN = "–"


@dataclass(frozen=True)
class Piece:
    """One line of a cell. `marks` are those of the notes that belong to it: a, b, ..."""

    text: str
    kind: Kind = "text"
    marks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Values:
    """The numbers behind a cell: everything of one quantity at one run x step x column; None is not known.

    `difference` is measured minus reported.
    """

    run: str
    step: int
    column: Column
    quantity: Quantity = "score"
    measured: Entry | None = None
    reported: Entry | None = None
    difference: Difference | None = None
    measured_notes: tuple[str, ...] = ()
    reported_notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Everything that a reader has to know of these numbers."""
        return (*self.measured_notes, *self.reported_notes)

    @property
    def state(self) -> str:
        """Whether there is a measured and a reported number, in words."""
        if self.measured:
            return "measured and reported" if self.reported else "measured"
        return "reported, not measured" if self.reported else "neither measured nor reported"


@dataclass(frozen=True)
class Cell:
    """Lines from top to bottom, and the numbers that they show (none where the cell is text)."""

    pieces: tuple[Piece, ...]
    values: tuple[Values, ...] = ()


@dataclass(frozen=True)
class Row:
    """`heads`: what stands left of the cells; `section`: heading of the group of rows that it belongs to."""

    heads: tuple[str, ...]
    cells: tuple[Cell, ...]
    section: str = ""


@dataclass(frozen=True)
class Note:
    """`mark` is that of the pieces it belongs to, "" for a note on the whole table."""

    mark: str
    text: str


@dataclass(frozen=True)
class Source:
    """A file that a table was made from; `records`: how many of its records, None for a file without records."""

    file: str
    sha256: str
    records: int | None = None


@dataclass(frozen=True)
class Table:
    """A table independent of any format.

    `number` is that of version 1 of the paper, None for a run that it has no table of; `title` begins with it. `name`:
    `table_2`, or the name of the run. `header`: titles of the heads, then of the columns. `entries`: the records
    that it shows or was checked against. `missing`: cells that a measured run should have and has no result of.
    """

    name: str
    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...] = ()
    made_from: tuple[Source, ...] = ()
    entries: tuple[Entry, ...] = ()
    missing: tuple[Lack, ...] = ()
    number: str | None = None

    @property
    def values(self) -> list[Values]:
        """All numbers of the table, row by row."""
        return [values for row in self.rows for cell in row.cells for values in cell.values]


@dataclass
class Footnotes:
    """Gives marks to notes as they come; equal notes share one."""

    marks: dict[str, str] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        """The mark of a note: a, b, ... z, aa, ab, ..."""
        return self.marks.setdefault(text, _letters(len(self.marks)))

    def notes(self) -> tuple[Note, ...]:
        """All of them in the order in which they were first asked for."""
        return tuple(Note(mark, text) for text, mark in self.marks.items())


def _letters(number: int) -> str:
    letters = ""
    number += 1
    while number:
        number, place = divmod(number - 1, 26)
        letters = chr(ord("a") + place) + letters
    return letters
