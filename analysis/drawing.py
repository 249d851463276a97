"""Panels of values against step to matplotlib figures. No number of any run stands here."""

from __future__ import annotations

import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from analysis import style
from analysis.blocks import Block
from analysis.marks import Signs, Text, add_axes, base_line, color_of, draw_intervals, draw_markers, new_figure
from analysis.panels import ALL_BENCHMARKS, Panel, Series


@dataclass(frozen=True)
class Row:
    """Panels side by side, with `gap` inches above them; a strip is a low row that belongs to the row above it."""

    panels: Sequence[Panel | None]
    height: float
    gap: float
    is_strip: bool = False


def grid_rows(panels: Sequence[Panel], strips: Sequence[Panel]) -> list[Row]:
    """Share panels out over rows, each followed by the strips of the same benchmarks if there are any.

    Ranges over all benchmarks go last.
    """
    ranges = [panel for panel in panels if panel.benchmark == ALL_BENCHMARKS]
    panels = [panel for panel in panels if panel.benchmark != ALL_BENCHMARKS]
    columns = _columns(len(panels) or 1)
    of_benchmark = {strip.benchmark: strip for strip in strips}
    rows = []
    for start in range(0, len(panels), columns):
        row = panels[start : start + columns]
        more = max(_words_height(panel, _panel_width(columns)) for panel in row)
        rows.append(Row(row, style.PANEL_HEIGHT, style.TITLE_GAP + more))
        below = [of_benchmark.get(panel.benchmark) for panel in row]
        if any(below):
            rows.append(Row(below, style.STRIP_HEIGHT, style.STRIP_GAP, is_strip=True))
    return rows + [Row([panel], style.RANGE_HEIGHT, style.TITLE_GAP) for panel in ranges]


def _columns(panels: int) -> int:
    return 2 if panels == 4 else min(panels, style.COLUMNS)


def _panel_width(columns: int) -> float:
    return (style.WIDTH - style.LEFT - style.RIGHT - (columns - 1) * style.COLUMN_GAP) / columns


def _caption(panel: Panel, width: float) -> list[str]:
    """The lines of the caption at this width in inches, at least one."""
    characters = int((width + style.RIGHT) * 72 / (style.SMALL_SIZE * style.CHARACTER_WIDTH))
    return textwrap.wrap(panel.caption(), characters) or [""]


def _title(panel: Panel, width: float) -> list[str]:
    """The lines of the title at this width in inches, at least one."""
    characters = int((width + style.RIGHT) * 72 / (style.TEXT_SIZE * style.CHARACTER_WIDTH * style.BOLD_WIDTH))
    return textwrap.wrap(panel.title, characters) or [""]


def _words_height(panel: Panel, width: float) -> float:
    """Height in inches of the lines of title and caption beyond the first of each."""
    captions, titles = _caption(panel, width), _title(panel, width)
    return (len(captions) - 1) * style.CAPTION_LINE + (len(titles) - 1) * style.PANEL_TITLE_LINE


def draw_grid(text: Text, rows: list[Row]) -> Figure:
    """Value against step, one axes per panel."""
    panels = [panel for row in rows for panel in row.panels if panel]
    steps = sorted({step for panel in panels for series in panel.series for step in series.grid})
    columns = max(len(row.panels) for row in rows)
    body = sum(row.height + row.gap for row in rows) + style.AXIS_GAP
    drawn = [series for panel in panels for series in panel.series]
    figure, top = new_figure(text, body, Signs(drawn, True, _bases(panels)))
    width = _panel_width(columns)
    for number, row in enumerate(rows):
        top -= row.gap
        for column, panel in enumerate(row.panels):
            if panel is None:
                continue
            axes = add_axes(figure, style.LEFT + column * (width + style.COLUMN_GAP), top, width, row.height)
            left = row.panels[column - 1] if column else None
            is_lowest = not any(column < len(other.panels) and other.panels[column] for other in rows[number + 1 :])
            if not row.is_strip:
                _set_title(axes, _title(panel, width), _caption(panel, width))
            _draw_panel(axes, panel, is_strip=row.is_strip, with_label=left is None or left.unit != panel.unit)
            _set_step_axis(axes, steps, width, is_lowest)
        top -= row.height
    return figure


def _draw_panel(axes: Axes, panel: Panel, is_strip: bool, with_label: bool) -> None:
    _draw_bases(axes, panel)
    places = sorted({series.place for series in panel.series})
    for series in panel.series:
        _draw_series(axes, series, style.ASIDE * (places.index(series.place) - (len(places) - 1) / 2))
    _set_value_limits(axes, panel)
    if with_label:
        axes.set_ylabel(value_label(panel, separator="\n" if is_strip else " "))
    if is_strip:
        axes.locator_params(axis="y", nbins=3)


def value_label(panel: Panel | Block, separator: str = " ") -> str:
    """For example `score (%)`."""
    return f"{panel.kind}{separator}({style.UNIT_LABELS.get(panel.unit, panel.unit)})"


def _set_title(axes: Axes, title: list[str], caption: list[str]) -> None:
    place: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "textcoords": "offset points"}
    above = 12.5 + (len(caption) - 1) * style.CAPTION_LINE * 72
    axes.annotate("\n".join(title), xytext=(0, above), fontweight="bold", **place)
    axes.annotate("\n".join(caption), xytext=(0, 4), fontsize=style.SMALL_SIZE, color=style.QUIET, **place)


def _bases(panels: Sequence[Panel]) -> dict[str, dict[str, Any]]:
    """The lines of bases that occur, by what the legend calls them."""
    origins = {series.origin for panel in panels for series in panel.with_base_line()}
    return {f"{origin} base (step 0)": base_line(origin) for origin in sorted(origins)}


def _draw_bases(axes: Axes, panel: Panel) -> None:
    """A line at the value of each untrained base that checkpoints are held against; grey if several runs share it."""
    colors = defaultdict(set)
    for series in panel.with_base_line():
        for value in series.base_values():
            colors[value, series.origin].add(color_of(series))
    for (value, origin), found in colors.items():
        axes.axhline(value, color=next(iter(found)) if len(found) == 1 else style.QUIET, **base_line(origin))


def _draw_series(axes: Axes, series: Series, aside: float) -> None:
    """`aside`: points to the right of its step, so that series do not hide each other."""
    figure = axes.get_figure()
    assert figure is not None
    beside = axes.transData + ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
    look: dict[str, Any] = {"color": color_of(series), "zorder": 3, "transform": beside}
    curve = series.curve()
    if curve:
        axes.plot(series.grid, curve, linestyle=style.FILLS[series.origin].line, linewidth=style.LINE, **look)
    draw_intervals(series, lambda x, y, error, **kw: axes.errorbar(x, y, yerr=error, transform=beside, **kw))
    for point in series.ranges:
        ends = [end for end in (point.low, point.high) if end is not None]
        axes.plot([point.step] * len(ends), ends, linewidth=style.RANGE, solid_capstyle="butt", **look)
    for step, values in _several_values(series).items():
        axes.plot([step, step], [min(values), max(values)], linewidth=style.THIN, **look)
    x, y = [point.step for point in series.points], [point.value for point in series.points]
    draw_markers(axes, series, x, y, beside)


def _several_values(series: Series) -> dict[int, list[float]]:
    values = defaultdict(list)
    for point in series.points:
        values[point.step].append(point.value)
    return {step: found for step, found in values.items() if len(found) > 1}


def _set_value_limits(axes: Axes, panel: Panel) -> None:
    ends = [end for point in panel.points for end in (point.value, point.low, point.high) if end is not None]
    low, high = np.nanmin(ends), np.nanmax(ends)
    margin = style.VALUE_MARGIN * (high - low)
    low, high = widened((low - margin, high + margin), panel.unit)
    if panel.unit == "percent":
        margin = style.PERCENT_MARGIN * (high - low)
        low, high = max(low, -margin), min(high, 100 + margin)
    if panel.kind == "length":
        low = 0.0
        axes.yaxis.set_major_formatter(in_thousands)
    if panel.kind == "truncated":
        low = min(low, 0.0)
    axes.set_ylim(low, high)


def in_thousands(value: float, _: object) -> str:
    """A number of tokens as ticks show it: 500, 7.5k, 30k."""
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def widened(limits: tuple[float, float], unit: str) -> tuple[float, float]:
    """Limits of an axis, not so narrow that they magnify noise."""
    low, high = limits
    lacking = max(0.0, style.MIN_SPAN.get(unit, 0.0) - (high - low))
    return low - lacking / 2, high + lacking / 2


def _set_step_axis(axes: Axes, steps: list[int], width: float, is_lowest: bool) -> None:
    """Distance grows with the logarithm of the step, one unit per doubling; step 0 is one unit left of the first."""
    first = next(step for step in steps if step > 0)

    def forward(step: np.ndarray) -> np.ndarray:
        step = np.asarray(step, dtype=float)
        return np.where(step <= first, step / first, 1 + np.log2(np.maximum(step, first) / first))

    def inverse(place: np.ndarray) -> np.ndarray:
        place = np.asarray(place, dtype=float)
        return np.where(place <= 1, place * first, first * np.exp2(np.maximum(place, 1) - 1))

    places = forward(np.array(steps))
    margin = 0.05 * float(places[-1] - places[0])
    axes.set_xscale("function", functions=(forward, inverse))
    axes.set_xlim(*inverse(np.array([places[0] - margin, places[-1] + margin])))
    inches = (places - places[0]) * width / (1.1 * float(places[-1] - places[0]))
    axes.set_xticks(steps, _step_labels(steps, inches.tolist()) if is_lowest else [""] * len(steps))
    if is_lowest:
        beyond = f", log scale beyond {first}" if steps[-1] > first else ""
        axes.set_xlabel(f"optimiser step{beyond}", labelpad=2)


def _step_labels(steps: list[int], inches: list[float]) -> list[str]:
    """A label per step: the last, then doublings of the first, then others; on a second line where the first is taken.

    Where both are taken, the tick stays without a label.
    """
    labels = [""] * len(steps)
    taken: tuple[list[tuple[float, float]], ...] = ([], [])
    first = next(step for step in steps if step > 0)
    doublings = {first << power for power in range(max(steps).bit_length())} | {0}
    order = sorted(range(len(steps)), key=lambda place: (place < len(steps) - 1, steps[place] not in doublings, place))
    for place in order:
        half = len(str(steps[place])) * style.SMALL_SIZE * style.DIGIT_WIDTH / 72 / 2 + style.DIGIT_GAP
        low, high = inches[place] - half, inches[place] + half
        for line, others in enumerate(taken):
            if all(high <= left or right <= low for left, right in others):
                labels[place] = "\n" * line + str(steps[place])
                others.append((low, high))
                break
    return labels
