"""What a figure shows, before any drawing: panels of series of points, chosen from the records of one run."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from analysis.names import benchmark_name, benchmark_place
from analysis.runs import Entry, Run
from reprokit.records.record import Record

MIN_CURVE_STEPS = 3  # with fewer, a line would claim a course between the ends that nobody measured


@dataclass(frozen=True)
class Quantity:
    """One number of a record that a figure shows; numbers with the same `benchmark` and `panel` share a panel."""

    benchmark: str
    panel: str
    kind: str
    detail: str
    unit: str
    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Point:
    """One value at one step, with its interval and the doubts about it."""

    step: int
    value: float
    low: float | None
    high: float | None
    note: str | None


@dataclass
class Series:
    """The points of one origin. `grid` holds all steps at which this run should have a value of that origin."""

    origin: str
    grid: list[int]
    points: list[Point] = field(default_factory=list)

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
        return [point.value for point in self.points if point.step == 0]


@dataclass
class Panel:
    """One benchmark and metric; `details` say what the values are, `sizes` over how many items and samples."""

    benchmark: str
    kind: str
    unit: str
    details: list[str] = field(default_factory=list)
    sizes: dict[str, list[str]] = field(default_factory=dict)
    series: list[Series] = field(default_factory=list)

    @property
    def points(self) -> list[Point]:
        """The points of all series."""
        return [point for series in self.series for point in series.points]

    def caption(self) -> str:
        """For example `avg@10, 30 items × 10 samples`; where the origins differ, the size of each."""
        details = " / ".join(self.details)
        sizes = {origin: ", ".join(found) for origin, found in self.sizes.items()}
        if len(set(sizes.values())) > 1:
            return ", ".join([details, *(f"{origin} {size}" for origin, size in sorted(sizes.items()))])
        return ", ".join(filter(None, [details, *set(sizes.values())]))


Choice = Callable[[Record], Quantity | None]


def score(record: Record) -> Quantity | None:
    """The value of a record, unless it is a length."""
    if record.unit == "tokens":
        return None
    benchmark, metric = benchmark_name(record.benchmark), record.metric
    kind = "change" if record.unit == "percentage points" else "score"
    interval = (record.interval_low, record.interval_high)
    return Quantity(benchmark, metric, kind, metric, record.unit, record.value, *interval)


def response_length(record: Record) -> Quantity | None:
    """Mean response length in tokens, or a value that is itself a length."""
    benchmark = benchmark_name(record.benchmark)
    if record.unit == "tokens":
        return Quantity(benchmark, "", "length", record.metric.split(", ")[-1], "tokens", record.value)
    if record.mean_response_tokens is None:
        return None
    return Quantity(benchmark, "", "length", "mean", "tokens", record.mean_response_tokens)


def truncated(record: Record) -> Quantity | None:
    """Responses cut at the token limit, in percent."""
    if record.truncated_fraction is None:
        return None
    return Quantity(benchmark_name(record.benchmark), "", "truncated", "", "percent", 100 * record.truncated_fraction)


def used_entries(run: Run, choice: Choice) -> list[Entry]:
    """The entries that `choice` takes a number from."""
    return [entry for entry in run.entries if choice(entry.record) is not None]


def build_panels(run: Run, choice: Choice) -> list[Panel]:
    """Panels by benchmark, then metric; a value that stands in several sources is one point."""
    panels: dict[tuple[str, str], Panel] = {}
    for entry in used_entries(run, choice):
        quantity = choice(entry.record)
        assert quantity is not None
        key = (quantity.benchmark, quantity.panel)
        panel = panels.setdefault(key, Panel(quantity.benchmark, quantity.kind, quantity.unit))
        if quantity.detail not in panel.details:
            panel.details.append(quantity.detail)
        size, sizes = _sample_size(entry.record), panel.sizes.setdefault(entry.record.origin, [])
        if size and size not in sizes:
            sizes.append(size)
        series = _series(panel, run, entry.record.origin)
        _add_point(series, entry.record, quantity)
    for panel in panels.values():
        panel.series.sort(key=lambda series: series.origin)
        for series in panel.series:
            series.points.sort(key=lambda point: point.step)
    return [panels[key] for key in sorted(panels, key=lambda key: (benchmark_place(key[0]), key[1]))]


def _sample_size(record: Record) -> str:
    if record.items is None:
        return ""
    samples = record.samples_per_item
    return f"{record.items} items" + ("" if samples is None else f" × {samples} sample{'s' if samples > 1 else ''}")


def _series(panel: Panel, run: Run, origin: str) -> Series:
    for series in panel.series:
        if series.origin == origin:
            return series
    panel.series.append(Series(origin, step_grid(run, origin)))
    return panel.series[-1]


def _add_point(series: Series, record: Record, quantity: Quantity) -> None:
    point = Point(record.step, quantity.value, quantity.low, quantity.high, record.note)
    for place, other in enumerate(series.points):
        if (other.step, other.value, other.low, other.high) == (point.step, point.value, point.low, point.high):
            series.points[place] = other if other.note else point
            return
    series.points.append(point)


def step_grid(run: Run, origin: str) -> list[int]:
    """Steps at which any benchmark of this run has a value of that origin, and those that lack a measurement."""
    steps = {entry.record.step for entry in run.entries if entry.record.origin == origin}
    if origin == "measured":
        steps |= {cell.step for cell in run.missing}
    return sorted(steps)


def notes_on(panels: list[Panel]) -> list[str]:
    """The doubts about the values shown, each once, with the benchmarks and steps that it concerns."""
    steps: dict[tuple[str, str], list[int]] = defaultdict(list)
    for panel in panels:
        for point in panel.points:
            if point.note and point.step not in steps[point.note, panel.benchmark]:
                steps[point.note, panel.benchmark].append(point.step)
    benchmarks: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for (note, benchmark), found in steps.items():
        if found:
            benchmarks[note, tuple(sorted(found))].append(benchmark)
    return [f"{', '.join(names)} ({_steps(found)}): {note}" for (note, found), names in benchmarks.items()]


def has_gaps(panels: list[Panel]) -> bool:
    """Whether some values are not joined to their neighbours because a value in between is not known."""
    curves = [series.curve() for panel in panels for series in panel.series]
    return any(not curve or any(map(math.isnan, curve)) for curve in curves)


def missing_from(run: Run) -> list[str]:
    """Cells that the recipe asks for and that have no result, per benchmark."""
    steps: dict[str, set[int]] = defaultdict(set)
    for cell in run.missing:
        steps[benchmark_name(cell.benchmark)].add(cell.step)
    return [f"{name} ({_steps(steps[name])})" for name in sorted(steps, key=benchmark_place)]


def _steps(steps: tuple[int, ...] | set[int]) -> str:
    return f"step{'s' if len(steps) > 1 else ''} {', '.join(map(str, sorted(steps)))}"
