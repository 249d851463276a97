"""Every record of `results/` by run, step and column: where tables, figures and claims look numbers up."""

from __future__ import annotations

import math
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from operator import not_
from pathlib import Path

import msgspec
import numpy as np

from analysis.columns import Column, column_of, is_change
from analysis.runs import Entry, ResultFile, read_folder
from reprokit.errors import UserError
from reprokit.records.details import CellDetails, Details, read_details
from reprokit.records.paper import base_of
from reprokit.records.record import MissingCell, Origin, Record

BASE_STEP = 0
_COUNTED = (None, "official")  # the paper's way of scoring, and numbers of others


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
        if record.protocol not in _COUNTED:
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
            place = Place(base, step, column, origin)
            found = self._scores.get(place, []) or self._lent.get(place, [])
        return sorted(found, key=lambda entry: not _stands_in(entry, source))

    @cached_property
    def _lent(self) -> dict[Place, list[Entry]]:
        """By base model, step 0 of the first run of it, in order of name, those of other harnesses last."""
        found: dict[Place, list[Entry]] = {}
        order = sorted(self._scores.items(), key=lambda item: (item[1][0].record.source is not None, item[0].run))
        for place, entries in order:
            if place.step == BASE_STEP:
                found.setdefault(replace(place, run=entries[0].record.model), entries)
        return found

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
                for place in self._places.get((run, origin), [])
                if place.step > BASE_STEP
                if wanted is None or place.column in wanted
            }
        )

    @cached_property
    def _places(self) -> dict[tuple[str, Origin], list[Place]]:
        """By run and origin, where it has scores."""
        found: dict[tuple[str, Origin], list[Place]] = defaultdict(list)
        for place in self._scores:
            found[place.run, place.origin].append(place)
        return found

    def columns(self, run: str, origin: Origin) -> list[Column]:
        """Columns that a run has a score in, in the paper's order."""
        found = {place.column for place in self._places.get((run, origin), [])}
        return sorted(found, key=lambda column: column.place)

    def missing(self, run: str) -> list[MissingCell]:
        """Cells that the recipe of a run asks for and that have no result."""
        return [cell for file in self.files if file.results.run == run for cell in file.results.missing]

    def cell_details(self, entry: Entry) -> CellDetails | None:
        """What is known of the responses behind a measured record; None where it was not collected."""
        details, record = self.details.get(entry.record.run), entry.record
        if details is None or record.origin != "measured":
            return None
        return details.cell(record.step, record.benchmark)

    def item_details(self, entry: Entry) -> CellDetails | None:
        """The details behind a measured record if their values are those of its metric, which is the headline."""
        details = self.cell_details(entry)
        record = entry.record
        return details if details and (details.metric, details.unit) == (record.metric, record.unit) else None

    def file(self, name: str) -> ResultFile:
        """The results file of that name."""
        return next(file for file in self.files if file.name == name)


def read_library(folder: Path) -> Library:
    """Read `folder/*.json` and, where they are, the details of those runs in `folder/details/`.

    Details that are not those of the records beside them, as of an earlier collection, are left out; that is printed.

    Raises:
        UserError: there is no result file, two are of one run, or some cannot be read; all of those are named at once.
    """
    files = read_folder(folder)
    _check_runs(folder, files)
    found = {file.results.run: _current(read_details(folder, file.results.run), file) for file in files}
    return Library(files, {run: details for run, details in found.items() if details is not None})


def _check_runs(folder: Path, files: Sequence[ResultFile]) -> None:
    times = Counter(file.results.run for file in files)
    if again := [file for file in files if times[file.results.run] > 1]:
        shown = ", ".join(f"{file.name} of run {file.results.run}" for file in again)
        raise UserError(f"several result files of one run in {folder}: {shown}. Keep one of each, move the others away")


def _current(details: Details | None, file: ResultFile) -> Details | None:
    """The details without cells that were made of other results, and without cases of their benchmarks; says so."""
    if details is None:
        return None
    records: dict[tuple[int, str], list[Record]] = defaultdict(list)
    for record in file.results.records:
        if record.protocol in _COUNTED and record.source is None:  # another harness has no details here
            records[record.step, record.benchmark].append(record)
    current = [_belongs(cell, records[cell.step, cell.benchmark]) for cell in details.cells]
    if all(current):
        return details
    left_out = f"details of {current.count(False)} of {len(current)} cells of run {details.run} are left out"
    print(f"{left_out}: they are not those of {file.name}; collect the run again", file=sys.stderr)
    stale = {cell.benchmark for cell in compress(details.cells, map(not_, current))}
    cases = [case for case in details.cases if case.benchmark not in stale]
    return msgspec.structs.replace(details, cells=list(compress(details.cells, current)), cases=cases)


def _belongs(cell: CellDetails, records: Sequence[Record]) -> bool:
    """Whether lengths of responses and the value of the metric are those of the records of the cell."""
    kinds = (cell.finished, cell.truncated)
    tokens = math.fsum(kind.responses * (kind.mean_tokens or 0.0) for kind in kinds) / max(cell.responses, 1)
    lengths = [tokens if record.mean_response_tokens is None else record.mean_response_tokens for record in records]
    if not records or not np.allclose(tokens, lengths, rtol=1e-9, atol=1e-6):
        return False
    found = [record.value for record in records if (record.metric, record.unit) == (cell.metric, cell.unit)]
    if not (found and cell.items):  # no verdict was usable
        return not (found or cell.items)
    weights = [cell.weights.get(item, 1.0) for item in cell.items]
    if sum(weights) <= 0:
        return False
    value = (100.0 if cell.unit == "percent" else 1.0) * np.average(list(cell.items.values()), weights=weights)
    return bool(np.allclose(value, found, rtol=1e-9, atol=1e-6))


def _is(entry: Entry, origin: Origin | None) -> bool:
    return origin is None or entry.record.origin == origin


def _stands_in(entry: Entry, source: str) -> bool:
    return bool(source) and (entry.record.source or "").startswith(source)
