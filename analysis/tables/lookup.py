"""Which record belongs into a cell of a table, and what has to be said of it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from analysis.columns import Column, column_of, is_change
from analysis.holdings import Library
from analysis.published import measured_run, paper_run
from analysis.runs import Entry
from analysis.tables import numbers
from reprokit.records.record import Record

FIRST_SHIFTED, SHIFT = 5, 13  # version 2 has 13 more tables in front of Table 5 of version 1
_TABLE = re.compile(r"(?P<table>Table \d+), (?P<version>v\d)")


@dataclass(frozen=True)
class Found:
    """A reported number, the notes that it needs, and the numbers that the paper has elsewhere for the same."""

    entry: Entry
    notes: tuple[str, ...]
    others: tuple[Entry, ...] = ()


def sources_of(number: str) -> tuple[str, str]:
    """How the source of a record begins that stands in table `number` of version 1, and in its twin of version 2."""
    later = int(number) + (SHIFT if int(number) >= FIRST_SHIFTED else 0)
    return f"Table {number}, v1", f"Table {later}, v2"


def reported(library: Library, run: str, step: int, column: Column, number: str | None) -> Found | None:
    """The paper's number for a cell of table `number`; that table comes first, then its twin, then any other.

    `number` is None for a table that the paper does not have. None if no number is known.
    """
    found = library.find(paper_run(run), step, column, "reported")
    if not found:
        return None
    own, twin = sources_of(number) if number else ("", "")
    found = sorted(found, key=lambda entry: (not _is_from(entry, own), not _is_from(entry, twin)))
    first, others = found[0], found[1:]
    notes = [_taken_from(first, own)] if number else []
    notes += [first.record.note] if first.record.note else []
    notes += [_other_value(other) for other in others if _differs(first.record, other.record)]
    return Found(first, tuple(filter(None, notes)), tuple(others))


def _is_from(entry: Entry, source: str) -> bool:
    return bool(source) and (entry.record.source or "").startswith(source)


def _taken_from(entry: Entry, own: str) -> str:
    """Says where a number is from if not from this table."""
    return "" if _is_from(entry, own) else f"the paper's number is taken from {place_of(entry.record)}"


def _other_value(entry: Entry) -> str:
    return f"{place_of(entry.record)} has {numbers.score(entry)}"


def _differs(shown: Record, other: Record) -> bool:
    """Whether another number contradicts the one that is shown and its note does not say so already."""
    table, note = place_of(other).partition(" of ")[0], shown.note or ""
    return other.value != shown.value and not (table in note and numbers.as_reported(other.value) in note)


def place_of(record: Record) -> str:
    """`Table 2, v1` -> `Table 2`, `Table 18, v2` -> `Table 18 of version 2`; other sources as they are."""
    match = _TABLE.match(record.source or "")
    if match is None:
        return record.source or "a source that is not named"
    return match["table"] if match["version"] == "v1" else f"{match['table']} of version {match['version'][1:]}"


def measured(library: Library, run: str, step: int, column: Column) -> Entry | None:
    """What was measured for a cell; None if nothing was."""
    return library.best(measured_run(library, run), step, column, "measured")


def notes_of(entry: Entry | None) -> tuple[str, ...]:
    """The doubts that a record itself states."""
    return (entry.record.note,) if entry and entry.record.note else ()


def measured_notes(entry: Entry, paper: Entry | None) -> tuple[str, ...]:
    """What a reader has to know of a measured number before holding it against the paper's."""
    return (*notes_of(entry), *(_unlike(entry.record, paper.record) if paper else ()))


def _unlike(record: Record, paper: Record) -> Iterator[str]:
    pairs = (
        ("problems", record.items, paper.items),
        ("samples per problem", record.samples_per_item, paper.samples_per_item),
    )
    unlike = [f"{what} {here} instead of {there}" for what, here, there in pairs if here and there and here != there]
    if unlike:
        yield f"not evaluated as in the paper: {', '.join(unlike)}"
    # With other numbers of samples the same metric has another name.
    if record.metric != paper.metric and record.samples_per_item == paper.samples_per_item:
        yield f"measured as {record.metric}; the paper's number is recorded as {paper.metric}"


def change(library: Library, run: str, step: int, column: Column) -> Found | None:
    """A change against the base that the paper reports instead of a score; None without one."""
    entry = library.change(paper_run(run), step, column, "reported")
    return Found(entry, (_taken_from(entry, own=""), *notes_of(entry))) if entry else None


def beside_the_columns(library: Library, places: Iterable[tuple[str, int]], columns: Sequence[Column]) -> list[Entry]:
    """Reported lengths and changes at those runs and steps that no column can hold."""
    wanted = {(paper_run(run), step) for run, step in places}
    runs = sorted({run for run, _ in wanted})
    entries = [entry for run in runs for entry in library.entries(run, "reported")]
    entries = [entry for entry in entries if (entry.record.run, entry.record.step) in wanted]
    return [entry for entry in entries if _is_homeless(entry.record, columns)]


def _is_homeless(record: Record, columns: Sequence[Column]) -> bool:
    return record.unit == "tokens" or (is_change(record) and column_of(record) not in columns)
