"""Every record of `results/` by run, step and column: where tables, figures and claims look numbers up."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from analysis.columns import Column, column_of, is_change
from analysis.runs import Entry, ResultFile, read_folder
from reprokit.records.details import CellDetails, Details, read_details
from reprokit.records.paper import base_of
from reprokit.records.record import MissingCell, Origin, Record

BASE_STEP = 0


@dataclass(frozen=True)
class Place:
    """Where a number stands: a run x step x column of one origin."""

    run: str
    step: int
    column: Column
    origin: Origin


@dataclass
class Library:
    """The records of a results folder; those of a base model are found through every run that starts from it.

    Only the paper's way of scoring counts (protocol `official`, or none for numbers of others).
    """

    files: list[ResultFile]
    details: dict[str, Details] = field(default_factory=dict)
    _scores: dict[Place, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    _changes: dict[Place, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    _entries: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))

    def __post_init__(self) -> None:
        for file in self.files:
            for record in file.results.records:
                self._add(Entry(record, file.name))

    def _add(self, entry: Entry) -> None:
        record, column = entry.record, column_of(entry.record)
        if record.protocol not in (None, "official"):
            return
        self._entries[record.run].append(entry)
        if column is not None:
            shelf = self._changes if is_change(record) else self._scores
            shelf[Place(record.run, record.step, column, record.origin)].append(entry)

    def runs(self, origin: Origin | None = None) -> list[str]:
        """Names of the runs that have records of that origin, sorted; bases are runs named after their model."""
        return sorted(run for run, found in self._entries.items() if any(_is(entry, origin) for entry in found))

    def entries(self, run: str, origin: Origin | None = None) -> list[Entry]:
        """All records of a run, lengths among them, without those that its base lends."""
        return [entry for entry in self._entries.get(run, []) if _is(entry, origin)]

    def settings(self, run: str) -> Record | None:
        """A record of the run that has its settings: of a checkpoint, else of the base; None for an unknown run."""
        entries = self._entries.get(run, [])
        return next((entry.record for entry in entries if entry.record.dataset), entries[0].record if entries else None)

    def base(self, run: str) -> str | None:
        """Name of the base model of a run, from its records or, for a run of the paper without any, from its name."""
        known = self.settings(run)
        return known.model if known else base_of(run)

    def find(self, run: str, step: int, column: Column, origin: Origin, source: str = "") -> list[Entry]:
        """Scores there, the one to show first.

        Args:
            step: of step 0 the run's own evaluation is taken, else that of its base model.
            source: reported numbers whose source begins with it come first, for example `Table 2,`.
        """
        found = self._scores.get(Place(run, step, column, origin), [])
        if not found and step == BASE_STEP and (base := self.base(run)):
            found = self._scores.get(Place(base, step, column, origin), []) or self._lent(base, column, origin)
        return sorted(found, key=lambda entry: not _stands_in(entry, source))

    def _lent(self, base: str, column: Column, origin: Origin) -> list[Entry]:
        """Step 0 of the first other run of this model."""
        for run in self.runs(origin):
            place = Place(run, BASE_STEP, column, origin)
            if place in self._scores and self._scores[place][0].record.model == base:
                return self._scores[place]
        return []

    def best(self, run: str, step: int, column: Column, origin: Origin, source: str = "") -> Entry | None:
        """The first that `find` gives, None without any."""
        return next(iter(self.find(run, step, column, origin, source)), None)

    def change(self, run: str, step: int, column: Column, origin: Origin) -> Entry | None:
        """A difference to the base that was itself reported; None without one."""
        return next(iter(self._changes.get(Place(run, step, column, origin), [])), None)

    def steps(self, run: str, origin: Origin, columns: Iterable[Column] | None = None) -> list[int]:
        """Steps above 0 at which a run has a score in any of the columns (None: in any column)."""
        wanted = None if columns is None else set(columns)
        return sorted(
            {
                place.step
                for place in self._scores
                if place.run == run and place.origin == origin and place.step > BASE_STEP
                if wanted is None or place.column in wanted
            }
        )

    def columns(self, run: str, origin: Origin) -> list[Column]:
        """Columns that a run has a score in, in the paper's order."""
        found = {place.column for place in self._scores if place.run == run and place.origin == origin}
        return sorted(found, key=lambda column: column.place)

    def missing(self, run: str) -> list[MissingCell]:
        """Cells that the recipe of a run asks for and that have no result."""
        return [cell for file in self.files if file.results.run == run for cell in file.results.missing]

    def cell_details(self, entry: Entry) -> CellDetails | None:
        """What is known of the single items behind a measured record; None where it was not collected."""
        details, record = self.details.get(entry.record.run), entry.record
        if details is None or record.origin != "measured":
            return None
        return details.cell(record.step, record.benchmark)

    def file(self, name: str) -> ResultFile:
        """The results file of that name."""
        return next(file for file in self.files if file.name == name)


def read_library(folder: Path) -> Library:
    """Read `folder/*.json` and, where they are, the details of those runs in `folder/details/`.

    Raises:
        UserError: there is no result file, or some cannot be read; all of those are named at once.
    """
    files = read_folder(folder)
    found = {file.results.run: read_details(folder, file.results.run) for file in files}
    return Library(files, {run: details for run, details in found.items() if details is not None})


def _is(entry: Entry, origin: Origin | None) -> bool:
    return origin is None or entry.record.origin == origin


def _stands_in(entry: Entry, source: str) -> bool:
    return bool(source) and (entry.record.source or "").startswith(source)
