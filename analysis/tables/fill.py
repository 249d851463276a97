"""From a layout to a table: looks every cell up and marks what a reader has to know of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from analysis.columns import Column
from analysis.completeness import Lack, run_matrix
from analysis.holdings import Library
from analysis.published import measured_run
from analysis.runs import Entry
from analysis.statistics import difference
from analysis.tables import lookup, numbers, remarks
from analysis.tables.layout import Layout, Line
from analysis.tables.model import UNKNOWN, Cell, Footnotes, Kind, Note, Piece, Quantity, Row, Source, Table, Values

SCORES, LENGTHS = "Score", "Mean response length in tokens (share of responses cut off)"


def fill(library: Library, layout: Layout) -> Table:
    """The table of a layout, with its notes and what it was made from."""
    return Filler(library, layout).table()


@dataclass
class Filler:
    """Fills the cells of one table and remembers which records it has used."""

    holdings: Library
    layout: Layout
    footnotes: Footnotes = field(default_factory=Footnotes)
    used: dict[int, Entry] = field(default_factory=dict)

    def table(self) -> Table:
        """The table with its notes."""
        layout = self.layout
        grid = [[self._values(line, column) for column in layout.columns] for line in layout.lines]
        rows, missing = self._rows(grid), self._missing()
        texts = self._remarks([values for line in grid for values in line], missing)
        return Table(
            name=layout.name,
            title=layout.title,
            caption=layout.caption,
            header=(*layout.heads, *(column.title for column in layout.columns)),
            rows=tuple(rows),
            notes=(*(Note("", text) for text in texts), *self.footnotes.notes()),
            made_from=self._made_from(),
            entries=tuple(self.used.values()),
            missing=tuple(missing),
            number=layout.number,
        )

    def _rows(self, grid: Sequence[Sequence[Values]]) -> list[Row]:
        is_measured = any(values.measured for line in grid for values in line)
        lines = list(zip(self.layout.lines, grid, strict=True))
        rows = [
            Row(line.heads, tuple(self._cell(values, is_measured) for values in found), SCORES) for line, found in lines
        ]
        if self.layout.lengths and is_measured:
            rows += [Row(line.heads, tuple(map(_length_cell, found)), LENGTHS) for line, found in lines]
        return rows

    def _remarks(self, values: Sequence[Values], missing: Sequence[Lack]) -> list[str]:
        layout = self.layout
        places = ((line.run, line.step) for line in layout.lines)
        others = lookup.beside_the_columns(self.holdings, places, layout.columns)
        for entry in others:
            self._use(entry)
        return [
            *remarks.on_layout(layout),
            *remarks.on_values(values),
            *(() if layout.number else remarks.on_sources(values)),
            *(remarks.on_lengths(values) if layout.lengths else ()),
            *remarks.on_missing(missing),
            *map(remarks.other_number, others),
        ]

    def _values(self, line: Line, column: Column) -> Values:
        run, step = line.run, line.step
        measured = lookup.measured(self.holdings, run, step, column)
        paper = lookup.reported(self.holdings, run, step, column, self.layout.number)
        quantity: Quantity = "score"
        if paper is None and (paper := lookup.change(self.holdings, run, step, column)):
            quantity = "change against base"
        reported = paper.entry if paper else None
        for other in paper.others if paper else ():
            self._use(other)
        found = None
        if measured and reported and quantity == "score":
            found = difference(self.holdings, reported, measured)
        return Values(
            *(run, step, column, quantity),
            measured=self._use(measured),
            reported=self._use(reported),
            difference=found,
            measured_notes=lookup.measured_notes(measured, reported) if measured else (),
            reported_notes=paper.notes if paper else (),
        )

    def _use(self, entry: Entry | None) -> Entry | None:
        if entry:
            self.used[id(entry.record)] = entry
        return entry

    def _cell(self, values: Values, is_measured: bool) -> Cell:
        """Up to three lines; where nothing is measured in the whole table, the paper's value stands alone."""
        pieces = []
        if values.measured:
            pieces.append(self._piece(numbers.score(values.measured), "measured", values.measured_notes))
        if values.reported:
            value = values.reported.record.value
            is_change = values.quantity == "change against base"
            shown = f"{numbers.fixed(value, 1, sign=True)} against base" if is_change else numbers.as_reported(value)
            pieces.append(self._piece(f"paper {shown}" if is_measured else shown, "reported", values.reported_notes))
        if values.difference and values.measured:
            pieces.append(Piece(numbers.signed(values.difference, values.measured.record.unit), "difference"))
        return Cell(tuple(pieces) or (Piece(UNKNOWN, "unknown"),), (values,))

    def _piece(self, text: str, kind: Kind, notes: tuple[str, ...]) -> Piece:
        return Piece(text, kind, tuple(self.footnotes.mark(note) for note in notes))

    def _missing(self) -> list[Lack]:
        """Cells without a result of the measured runs of this table; of a run of its own all of them."""
        runs = sorted({measured_run(self.holdings, line.run) for line in self.layout.lines})
        lacking = [lack for run in runs for lack in run_matrix(self.holdings, run).lacking]
        if self.layout.number is None:
            return lacking
        steps = {line.step for line in self.layout.lines}
        benchmarks = {column.benchmark for column in self.layout.columns}
        return [lack for lack in lacking if lack.step in steps and lack.benchmark in benchmarks]

    def _made_from(self) -> tuple[Source, ...]:
        records = Counter(entry.file for entry in self.used.values())
        files = (file for file in self.holdings.files if file.name in records)
        return tuple(Source(file.name, file.sha256, records[file.name]) for file in files)


def _length_cell(values: Values) -> Cell:
    """The response length of a benchmark; those of its columns that were measured have the same."""
    record = values.measured.record if values.measured else None
    place = (values.run, values.step, values.column)
    both = (
        Values(*place, "mean response tokens", measured=values.measured),
        Values(*place, "truncated fraction", measured=values.measured),
    )
    if record is None or record.mean_response_tokens is None:
        return Cell((Piece(UNKNOWN, "unknown"),), both)
    shown = numbers.fixed(record.mean_response_tokens, 0)
    if record.truncated_fraction is not None:
        shown += f" ({numbers.fixed(100 * record.truncated_fraction, 0)} %)"
    return Cell((Piece(shown, "measured"),), both)
