"""What is said below a table of the table as a whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from analysis.completeness import Lack
from analysis.names import benchmark_name
from analysis.runs import Entry
from analysis.tables import numbers
from analysis.tables.layout import Layout
from analysis.tables.model import UNKNOWN, Values

LEGEND = (
    "In each cell the measured value with its 95 % interval, below it the paper's value, below that measured minus "
    "paper, with a 95 % interval where the number of the paper's problems is known: the widest that it allows."
)
NOTHING_MEASURED = "Nothing of this has been measured yet: all values are the paper's."
UNKNOWN_VALUE = f"{UNKNOWN}: not measured yet, and not known from the paper."
NO_LENGTHS = "Response lengths and the share of responses cut off stand here once they are measured."
MAX_CELLS = 20


def on_layout(layout: Layout) -> Iterator[str]:
    """What is not known of the paper's table."""
    if layout.note:
        yield f"{layout.note[0].upper()}{layout.note[1:]}."


def on_values(values: Sequence[Values]) -> Iterator[str]:
    """How to read the cells and where their numbers are from."""
    if not any(one.measured for one in values):
        if any(one.reported for one in values):
            yield NOTHING_MEASURED
    elif any(one.reported for one in values):
        yield LEGEND
    else:
        yield "Measured values with their 95 % interval; of these no number of the paper is known."
    if any(one.measured is None and one.reported is None for one in values):
        yield UNKNOWN_VALUE
    published = sorted({one.measured.record.run for one in values if one.measured and _is_published(one.measured)})
    if published:
        yield f"Measured on the checkpoints that the authors published: {', '.join(published)}."


def on_sources(values: Iterable[Values]) -> Iterator[str]:
    """Where reported numbers stand that are in none of the paper's tables of version 1."""
    sources = dict.fromkeys(one.reported.record.source for one in values if one.reported and one.reported.record.source)
    if sources:
        yield f"The paper's values are from {'; '.join(sources)}."


def _is_published(entry: Entry) -> bool:
    return entry.record.checkpoints == "published" and entry.record.step > 0


def on_lengths(values: Iterable[Values]) -> Iterator[str]:
    """Says that lengths are not known instead of leaving them out in silence."""
    if not any(one.measured for one in values):
        yield NO_LENGTHS


def on_missing(missing: Iterable[Lack]) -> Iterator[str]:
    """The cells that should have a result and have none, by run."""
    for run, lacks in groupby(sorted(missing), key=lambda lack: lack.run):
        cells = [f"step {lack.step} on {lack.benchmark}" for lack in lacks]
        more = f" and {len(cells) - MAX_CELLS} more" if len(cells) > MAX_CELLS else ""
        yield f"No result yet of {run}: {', '.join(cells[:MAX_CELLS])}{more}."


def other_number(entry: Entry) -> str:
    """A reported number that no column can hold."""
    record = entry.record
    unit = "" if record.unit == "percent" else f" {record.unit}"
    note = f" ({record.note})" if record.note else ""
    value = numbers.fixed(record.value, numbers.decimals(record.unit))
    what = f"{benchmark_name(record.benchmark)}, {record.metric}, step {record.step}"
    return f"Also reported, {record.source}: {what}: {value}{unit}{note}."
