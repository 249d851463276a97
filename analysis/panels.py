"""What a figure shows, before any drawing: panels of series of points, chosen from the records of several runs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

from analysis.columns import Column
from analysis.completeness import Lack
from analysis.holdings import BASE_STEP, Library
from analysis.names import benchmark_name, benchmark_place
from analysis.runs import Entry
from reprokit.records.record import Origin, Record

MIN_CURVE_STEPS = 3  # with fewer, a line would claim a course between the ends that nobody measured
ORIGINS: tuple[Origin, ...] = ("measured", "reported")
ALL_BENCHMARKS = "All benchmarks"
_RANGE_ENDS = ("approximate minimum", "approximate maximum")
Number = tuple[float, float | None, float | None]  # value and interval


@dataclass(frozen=True)
class Shown:
    """A run in a figure: its name, what the legend calls it, and its place among colours and markers.

    `measured` is the run that has its measurements, empty if it has them itself.
    """

    run: str
    label: str = ""
    place: int = 0
    measured: str = ""

    def name(self, origin: Origin) -> str:
        """The run that has its numbers of that origin."""
        return self.measured or self.run if origin == "measured" else self.run


@dataclass(frozen=True)
class Point:
    """One value at one step with its interval, the doubts about it, and what it was made from."""

    step: int
    value: float
    low: float | None
    high: float | None
    note: str | None
    entries: tuple[Entry, ...] = ()


@dataclass
class Series:
    """The points of one run and origin.

    `grid` holds all steps at which this run should have a value of that origin; `ranges` are points whose value is not
    known but for its limits.
    """

    origin: Origin
    grid: list[int]
    label: str = ""
    place: int = 0
    points: list[Point] = field(default_factory=list)
    ranges: list[Point] = field(default_factory=list)

    def curve(self) -> list[float]:
        """One value per step of `grid`, NaN where none is known; of several values, the first.

        Empty where no two neighbouring steps have a value, or too few steps to speak of a curve.
        """
        first: dict[int, float] = {}
        for point in self.points:
            first.setdefault(point.step, point.value)
        neighbours = any(left in first and right in first for left, right in pairwise(self.grid))
        if len(self.grid) < MIN_CURVE_STEPS or not neighbours:
            return []
        return [first.get(step, math.nan) for step in self.grid]

    def base_values(self) -> list[float]:
        """Values of the untrained base."""
        return [point.value for point in self.points if point.step == BASE_STEP]

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a value above step 0."""
        return any(point.step > BASE_STEP for point in self.points)


@dataclass
class Panel:
    """One column; `details` say what the values are, `sizes` over how many items and samples."""

    title: str
    benchmark: str
    kind: str
    unit: str
    details: list[str] = field(default_factory=list)
    sizes: dict[str, list[str]] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)

    @property
    def points(self) -> list[Point]:
        """The points of all series, ranges among them."""
        return [point for series in self.series for point in series.points + series.ranges]

    def with_base_line(self) -> list[Series]:
        """By run, the series whose base the checkpoints are held against.

        Of measured checkpoints that is the measured base and no other; the reported one only where no checkpoint is
        measured.
        """
        chosen: dict[int, Series] = {}
        for series in sorted(self.series, key=lambda one: (not one.has_checkpoints, ORIGINS.index(one.origin))):
            chosen.setdefault(series.place, series)
        return [series for series in chosen.values() if series.base_values()]

    def caption(self) -> str:
        """For example `avg@10, 30 items × 10 samples`; where the origins differ, the size of each."""
        details = " / ".join(detail for detail in self.details if not self.title.endswith(f" {detail}"))
        sizes = {origin: ", ".join(found) for origin, found in self.sizes.items()}
        if len(set(sizes.values())) > 1:
            return ", ".join(filter(None, [details, *(f"{origin} {size}" for origin, size in sorted(sizes.items()))]))
        return ", ".join(filter(None, [details, *set(sizes.values())]))


@dataclass(frozen=True)
class Choice:
    """One number of a record that a figure shows; `detail` says what it is, empty for the metric of the record."""

    kind: str
    unit: str
    detail: str
    number: Callable[[Record], Number | None]


def _score(record: Record) -> Number:
    return record.value, record.interval_low, record.interval_high


def _length(record: Record) -> Number | None:
    return None if record.mean_response_tokens is None else (record.mean_response_tokens, None, None)


def _truncated(record: Record) -> Number | None:
    return None if record.truncated_fraction is None else (100 * record.truncated_fraction, None, None)


SCORE = Choice("score", "", "", _score)
LENGTH = Choice("length", "tokens", "mean", _length)
TRUNCATED = Choice("truncated", "percent", "responses", _truncated)


def build_panels(library: Library, shown: Sequence[Shown], columns: Iterable[Column], choice: Choice) -> list[Panel]:
    """A panel per column that has a value, or per benchmark where the number is one of its responses."""
    panels = []
    columns = list(columns)
    grids = {
        (each, origin): step_grid(library, each.name(origin), origin, columns) for each in shown for origin in ORIGINS
    }
    for title, column in _titled(columns, choice).items():
        panel = Panel(title, column.benchmark, choice.kind, choice.unit)
        for each in shown:
            for origin in ORIGINS:
                series = Series(origin, grids[each, origin], each.label, each.place)
                _fill(series, library, each.name(origin), column, choice)
                if series.points:
                    panel.series.append(series)
        panel.series = _without_shared_bases(panel.series)
        if panel.series:
            panels.append(_described(panel, choice))
    return panels


def _without_shared_bases(found: Sequence[Series]) -> list[Series]:
    """Without those that have a base alone, and one that another series of the same model shows as well."""
    seen: set[tuple[Origin, str]] = set()
    kept = []
    for series in sorted(found, key=lambda one: not one.has_checkpoints):
        models = {(series.origin, entry.record.model) for point in series.points for entry in point.entries}
        if series.has_checkpoints or not models <= seen:
            kept.append(series)
        seen |= models
    return [series for series in found if any(series is one for one in kept)]


def _titled(columns: Iterable[Column], choice: Choice) -> dict[str, Column]:
    titled: dict[str, Column] = {}
    for column in columns:
        titled.setdefault(column.title if choice is SCORE else column.benchmark, column)
    return titled


def _fill(series: Series, library: Library, run: str, column: Column, choice: Choice) -> None:
    for step in series.grid:
        for entry in entries_at(library, run, step, column, series.origin):
            number = choice.number(entry.record)
            if number is not None:
                add_point(series.points, Point(step, *number, entry.record.note, (entry,)))
    for entry in library.entries(run, series.origin) if choice is LENGTH else ():
        record = entry.record
        if record.unit == "tokens" and benchmark_name(record.benchmark) == column.benchmark:
            add_point(series.points, Point(record.step, record.value, None, None, record.note, (entry,)))
    series.points.sort(key=lambda point: point.step)


def add_point(points: list[Point], point: Point) -> None:
    """Add a point; a value that stands in several sources is one point."""
    for place, other in enumerate(points):
        if (other.step, other.value, other.low, other.high) == (point.step, point.value, point.low, point.high):
            points[place] = replace(other, note=other.note or point.note, entries=other.entries + point.entries)
            return
    points.append(point)


def entries_at(library: Library, run: str, step: int, column: Column, origin: Origin) -> list[Entry]:
    """Scores there; those that its base lends to step 0 must be of metric, items, samples and harness of its own."""
    found = library.find(run, step, column, origin)
    if step > BASE_STEP or all(entry.record.run == run for entry in found):
        return found
    later = library.steps(run, origin, [column])
    own = {_measure(entry) for step in later for entry in library.find(run, step, column, origin)}
    return [entry for entry in found if not own or _measure(entry) in own]


def _measure(entry: Entry) -> tuple[object, ...]:
    record = entry.record
    is_imported = record.origin == "measured" and record.source is not None
    return record.metric, record.unit, record.items, record.samples_per_item, is_imported


def _described(panel: Panel, choice: Choice) -> Panel:
    """The panel with unit, details and sizes of its records."""
    for series in panel.series:
        for entry in (entry for point in series.points for entry in point.entries):
            panel.unit = choice.unit or entry.record.unit
            _append(panel.details, choice.detail or entry.record.metric)
            size = _sample_size(entry.record)
            if size:
                _append(panel.sizes.setdefault(series.origin, []), size)
    return panel


def _append(words: list[str], word: str) -> None:
    if word not in words:
        words.append(word)


def _sample_size(record: Record) -> str:
    if record.items is None:
        return ""
    samples = record.samples_per_item
    return f"{record.items} items" + ("" if samples is None else f" × {samples} sample{'s' if samples > 1 else ''}")


def step_grid(library: Library, run: str, origin: Origin, columns: Iterable[Column]) -> list[int]:
    """Steps at which any benchmark of this run has a value of that origin, and those that lack a measurement.

    Its base is among them where it has a value in any of the columns.
    """
    steps = {entry.record.step for entry in library.entries(run, origin)}
    if origin == "measured":
        steps |= {cell.step for cell in library.missing(run)}
    has_base = any(library.find(run, BASE_STEP, column, origin) for column in columns)
    return sorted(steps | {BASE_STEP} if has_base else steps)


def range_panels(library: Library, shown: Sequence[Shown]) -> list[Panel]:
    """Response lengths of which only the range over all benchmarks is known; at most one panel."""
    panel = Panel(ALL_BENCHMARKS, ALL_BENCHMARKS, "length", "tokens", ["range over the benchmarks"])
    for each in shown:
        series = Series("reported", step_grid(library, each.run, "reported", []), each.label, each.place)
        ends = defaultdict(list)
        for entry in library.entries(each.run, "reported"):
            if benchmark_name(entry.record.benchmark) == ALL_BENCHMARKS and entry.record.metric.endswith(_RANGE_ENDS):
                ends[entry.record.step].append(entry)
        for step, found in sorted(ends.items()):
            low, high = (pick(entry.record.value for entry in found) for pick in (min, max))
            series.ranges.append(Point(step, math.nan, low, high, found[0].record.note, tuple(found)))
        if series.ranges:
            panel.series.append(series)
    return [panel] if panel.series else []


def notes_on(titled: Iterable[tuple[str, Series]]) -> list[str]:
    """The doubts about values, each once, with the runs, benchmarks and steps that it concerns."""
    steps: dict[tuple[str, str], list[int]] = defaultdict(list)
    for title, series in titled:
        for point in series.points + series.ranges:
            # A base is often shared by several runs.
            is_base = series.label and point.step == BASE_STEP and point.entries
            label = point.entries[0].record.model if is_base else series.label
            who = " ".join(filter(None, [label, title]))
            if point.note and point.step not in steps[point.note, who]:
                steps[point.note, who].append(point.step)
    concerned: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for (note, who), found in steps.items():
        concerned[note, tuple(sorted(found))].append(who)
    return [f"{', '.join(names)} ({steps_in_words(found)}): {note}" for (note, found), names in concerned.items()]


def has_gaps(panels: Sequence[Panel]) -> bool:
    """Whether some values are not joined to their neighbours because a value in between is not known."""
    curves = [series.curve() for panel in panels for series in panel.series if series.points]
    return any(not curve or any(map(math.isnan, curve)) for curve in curves)


def cells_in_words(cells: Iterable[Lack]) -> list[str]:
    """Per benchmark the steps of cells without a result."""
    steps: dict[str, set[int]] = defaultdict(set)
    for cell in cells:
        steps[cell.benchmark].add(cell.step)
    return [f"{name} ({steps_in_words(steps[name])})" for name in sorted(steps, key=benchmark_place)]


def steps_in_words(steps: Iterable[int]) -> str:
    """`step 10` or `steps 10, 20`."""
    ordered = sorted(set(steps))
    return f"step{'s' if len(ordered) > 1 else ''} {', '.join(map(str, ordered))}"
