"""Values of single steps before any drawing: blocks of rows that share an axis."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from analysis.columns import Column, column_of, is_change
from analysis.exhibits import model_and_data
from analysis.holdings import BASE_STEP, Library
from analysis.names import group_of
from analysis.panels import ORIGINS, Panel, Point, Series, Shown, add_point, entries_at
from analysis.runs import Entry
from analysis.statistics import difference
from reprokit.records.record import Origin

POINTS = "percentage points"
UNTRAINED = "base"


@dataclass
class Row:
    """One line of a block: what it is called, the heading that it stands under, and its values."""

    label: str
    group: str
    series: list[Series] = field(default_factory=list)


@dataclass
class Block:
    """Rows with one axis for `kind` in `unit`."""

    kind: str
    unit: str
    rows: list[Row] = field(default_factory=list)

    @property
    def series(self) -> list[Series]:
        """The series of all rows."""
        return [series for row in self.rows for series in row.series]


def last_step(library: Library, run: str, origin: Origin) -> int:
    """The last checkpoint that a run has or should have of that origin; 0 for none at all."""
    missing = [cell.step for cell in library.missing(run)] if origin == "measured" else []
    return max([*missing, *(entry.record.step for entry in library.entries(run, origin))], default=BASE_STEP)


def change_blocks(library: Library, shown: Sequence[Shown], columns: Iterable[Column]) -> list[Block]:
    """Change against the base at the last checkpoint, one block per unit, a row per column."""
    blocks: dict[str, Block] = {}
    for column in [*columns, *_other_changes(library, shown, columns)]:
        unit = _unit(library, column)
        if unit is None:
            continue
        unit = POINTS if unit == "percent" else unit
        series = [_changes(library, each, column, origin) for each in shown for origin in ORIGINS]
        block = blocks.setdefault(unit, Block("change", unit))
        block.rows.append(Row(column.title, group_of(column.benchmark) or "", [one for one in series if one.points]))
    for block in blocks.values():
        groups = list(dict.fromkeys(row.group for row in block.rows))
        block.rows.sort(key=lambda row: groups.index(row.group))
    return [block for block in blocks.values() if block.series]


def _other_changes(library: Library, shown: Sequence[Shown], columns: Iterable[Column]) -> list[Column]:
    """Columns of reported differences that are none of the usual ones: which measure it is was not said."""
    records = [entry.record for each in shown for entry in library.entries(each.run)]
    found = dict.fromkeys(column_of(record) for record in records if is_change(record))
    return [column for column in found if column is not None and column not in columns]


def _unit(library: Library, column: Column) -> str | None:
    """The unit of a column, from any record of it; None where nobody has one."""
    records = (record for file in library.files for record in file.results.records)
    return next((record.unit for record in records if column_of(record) == column), None)


def _changes(library: Library, shown: Shown, column: Column, origin: Origin) -> Series:
    """The change that was itself reported, else the difference of the two scores."""
    run = shown.name(origin)
    step = last_step(library, run, origin)
    series = Series(origin, [step], shown.label, shown.place)
    reported = library.change(run, step, column, origin)
    after = library.best(run, step, column, origin) if step > BASE_STEP else None
    before = next(iter(entries_at(library, run, BASE_STEP, column, origin)), None)
    if reported is not None:
        record = reported.record
        interval = (record.interval_low, record.interval_high)
        series.points.append(Point(record.step, record.value, *interval, record.note, (reported,)))
    elif after is not None and before is not None:
        found = difference(library, before, after)
        note = after.record.note or before.record.note
        series.points.append(Point(step, found.effect, found.low, found.high, note, (after, before)))
    return series


def level_blocks(library: Library, shown: Sequence[Shown], columns: Iterable[Column]) -> list[Block]:
    """Scores at the last checkpoint, one block per column; rows by model: its base, then each of its runs."""
    data = list(dict.fromkeys(model_and_data(each.run)[1] for each in shown))
    blocks = []
    for column in columns:
        block = Block(column.title, _unit(library, column) or "")
        for model in dict.fromkeys(model_and_data(each.run)[0] for each in shown):
            own = [each for each in shown if model_and_data(each.run)[0] == model]
            base = replace(own[0], label=UNTRAINED, place=0)
            block.rows.append(_level_row(library, base, model, column, is_base=True))
            for each in own:
                name = model_and_data(each.run)[1]
                row = replace(each, label=name, place=1 + data.index(name))
                block.rows.append(_level_row(library, row, model, column))
        blocks.append(block)
    return [block for block in blocks if block.series]


def _level_row(library: Library, shown: Shown, model: str, column: Column, is_base: bool = False) -> Row:
    row = Row(shown.label, model)
    for origin in ORIGINS:
        run = shown.name(origin)
        step = BASE_STEP if is_base else last_step(library, run, origin)
        found = entries_at(library, run, step, column, origin) if is_base or step > BASE_STEP else []
        series = Series(origin, [step], shown.label, shown.place)
        for entry in found:
            add_point(series.points, _point(entry))
        row.series += [series] if series.points else []
    return row


def _point(entry: Entry) -> Point:
    record = entry.record
    return Point(record.step, record.value, record.interval_low, record.interval_high, record.note, (entry,))


def panel_blocks(panels: Sequence[Panel]) -> list[Block]:
    """Panels of a run that has a single step: a row each, one block per kind and unit."""
    blocks: dict[tuple[str, str], Block] = {}
    for panel in panels:
        block = blocks.setdefault((panel.kind, panel.unit), Block(panel.kind, panel.unit))
        block.rows.append(Row(": ".join(filter(None, [panel.title, panel.caption()])), "", panel.series))
    return list(blocks.values())
