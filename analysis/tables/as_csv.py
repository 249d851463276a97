"""A table as CSV: long form, a line per number, so that a program needs no notes to read it."""

from __future__ import annotations

import csv as writer
import io
from collections.abc import Iterator

from analysis.runs import Entry
from analysis.statistics import Difference
from analysis.tables.model import Row, Table, Values

COLUMNS = (
    *("table", "row", "column", "quantity", "run", "step", "benchmark", "measure", "unit", "state"),
    *("measured", "low", "high", "items", "samples_per_item"),
    *("reported", "reported_items", "reported_samples_per_item", "source"),
    *("difference", "difference_low", "difference_high", "p_value", "method"),
    *("note", "measured_provenance", "reported_provenance"),
)
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet takes text that begins so for a formula
Line = dict[str, object]


def csv(table: Table) -> str:
    """Text with `\\n` line ends. A table without numbers (Table 3) is written as it looks, its sections first."""
    stream = io.StringIO()
    lines = writer.writer(stream, lineterminator="\n")
    if table.values:
        lines.writerow(COLUMNS)
        lines.writerows([_field(line.get(name)) for name in COLUMNS] for line in _numbers(table))
    else:
        lines.writerows([_field(text) for text in texts] for texts in _texts(table))
    return stream.getvalue()


def _field(value: object) -> str:
    """A number with up to ten digits; text so that no spreadsheet computes it; nothing for what is not known."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return format(value, ".10g")
    text = str(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _texts(table: Table) -> Iterator[list[str]]:
    """Rows as they look; a head that is not repeated is."""
    yield ["Section", *table.header]
    head = ""
    for row in table.rows:
        head = row.heads[0] or head
        yield [row.section, head, *(" ".join(piece.text for piece in cell.pieces) for cell in row.cells)]


def _numbers(table: Table) -> Iterator[Line]:
    for row in table.rows:
        for cell in row.cells:
            yield from (_line(table, row, values) for values in cell.values)


def _line(table: Table, row: Row, values: Values) -> Line:
    entry = values.measured or values.reported
    line: Line = {
        "table": table.name,
        "row": ", ".join(filter(None, row.heads)),
        "column": values.column.title,
        "quantity": values.quantity,
        "run": entry.record.run if entry else values.run,
        "step": values.step,
        "benchmark": values.column.benchmark,
        "measure": values.column.measure,
        "unit": entry.record.unit if entry else None,
        "state": values.state,
        "note": "; ".join(values.notes),
    }
    if values.quantity in ("mean response tokens", "truncated fraction"):
        return line | _length(values)
    return line | _measured(values.measured) | _reported(values.reported) | _difference(values.difference)


def _length(values: Values) -> Line:
    if values.measured is None:
        return {}
    record = values.measured.record
    is_mean = values.quantity == "mean response tokens"
    return {
        "unit": "tokens" if is_mean else "fraction",
        "measured": record.mean_response_tokens if is_mean else record.truncated_fraction,
        "items": record.items,
        "samples_per_item": record.samples_per_item,
        "measured_provenance": _provenance(values.measured),
    }


def _measured(entry: Entry | None) -> Line:
    if entry is None:
        return {}
    record = entry.record
    return {
        "measured": record.value,
        "low": record.interval_low,
        "high": record.interval_high,
        "items": record.items,
        "samples_per_item": record.samples_per_item,
        "measured_provenance": _provenance(entry),
    }


def _reported(entry: Entry | None) -> Line:
    if entry is None:
        return {}
    record = entry.record
    return {
        "reported": record.value,
        "reported_items": record.items,
        "reported_samples_per_item": record.samples_per_item,
        "source": record.source,
        "reported_provenance": _provenance(entry),
    }


def _difference(found: Difference | None) -> Line:
    if found is None:
        return {}
    return {
        "difference": found.effect,
        "difference_low": found.low,
        "difference_high": found.high,
        "p_value": found.p_value,
        "method": found.method,
    }


def _provenance(entry: Entry) -> str:
    """The results file and the key under which that has what made the number."""
    return f"{entry.file}#{entry.record.provenance or ''}"
