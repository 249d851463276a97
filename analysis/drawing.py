"""Panels to matplotlib figures. No number of any run stands here."""

from __future__ import annotations

import io
import math
import textwrap
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import style
from analysis.panels import Panel, Point, Series

# Without these dates and versions the same records give the same bytes.
_METADATA: dict[str, dict[str, None]] = {
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}


@dataclass(frozen=True)
class Text:
    """The words around the panels."""

    title: str
    subtitle: str
    footer: list[str]


@dataclass(frozen=True)
class Row:
    """Panels side by side, with `gap` inches above them; a strip is a low row that belongs to the row above it."""

    panels: Sequence[Panel | None]
    height: float
    gap: float
    is_strip: bool = False


_BASE_LINE: dict[str, Any] = {"linestyle": (0, (4, 3)), "linewidth": 0.8, "zorder": 1.5}


def render(figure: Figure, extension: str) -> bytes:
    """The figure as a file of that kind, `pdf` or `png`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=extension, dpi=style.PNG_DPI, metadata=_METADATA[extension])
    return buffer.getvalue()


def grid_rows(panels: list[Panel], strips: list[Panel]) -> list[Row]:
    """Share panels out over rows, each followed by the strips of the same benchmarks if there are any."""
    columns = _columns(len(panels))
    of_benchmark = {strip.benchmark: strip for strip in strips}
    rows = []
    for start in range(0, len(panels), columns):
        row = panels[start : start + columns]
        caption_lines = max(len(_caption(panel, _panel_width(columns))) for panel in row)
        rows.append(Row(row, style.PANEL_HEIGHT, style.TITLE_GAP + (caption_lines - 1) * style.FOOTER_LINE))
        below = [of_benchmark.get(panel.benchmark) for panel in row]
        if any(below):
            rows.append(Row(below, style.STRIP_HEIGHT, style.STRIP_GAP, is_strip=True))
    return rows


def _columns(panels: int) -> int:
    return 2 if panels == 4 else min(panels, style.COLUMNS)


def _panel_width(columns: int) -> float:
    return (style.WIDTH - style.LEFT - style.RIGHT - (columns - 1) * style.COLUMN_GAP) / columns


def _caption(panel: Panel, width: float) -> list[str]:
    """The lines of the caption at this width in inches, at least one."""
    characters = int((width + style.RIGHT) * 72 / (style.SMALL_SIZE * style.CHARACTER_WIDTH))
    return textwrap.wrap(panel.caption(), characters) or [""]


def draw_grid(text: Text, rows: list[Row]) -> Figure:
    """Value against step, one axes per panel."""
    panels = [panel for row in rows for panel in row.panels if panel]
    steps = sorted({step for panel in panels for series in panel.series for step in series.grid})
    columns = max(len(row.panels) for row in rows)
    body = sum(row.height + row.gap for row in rows) + style.AXIS_GAP
    figure, top_of_body = _new_figure(text, body)
    top = top_of_body
    width = _panel_width(columns)
    for number, row in enumerate(rows):
        top -= row.gap
        for column, panel in enumerate(row.panels):
            if panel is None:
                continue
            axes = _add_axes(figure, style.LEFT + column * (width + style.COLUMN_GAP), top, width, row.height)
            left = row.panels[column - 1] if column else None
            is_lowest = not any(column < len(other.panels) and other.panels[column] for other in rows[number + 1 :])
            if not row.is_strip:
                _set_title(axes, panel, _caption(panel, width))
            _draw_panel(axes, panel, is_strip=row.is_strip, with_label=left is None or left.unit != panel.unit)
            _set_step_axis(axes, steps, width, is_lowest)
        top -= row.height
    _add_legend(figure, panels, top_of_body, has_curves=True)
    return figure


def _draw_panel(axes: Axes, panel: Panel, is_strip: bool, with_label: bool) -> None:
    for series in panel.series:
        _draw_series(axes, series, panel.kind)
    _set_value_limits(axes, panel)
    if with_label:
        axes.set_ylabel(_value_label(panel, separator="\n" if is_strip else " "))
    if is_strip:
        axes.locator_params(axis="y", nbins=3)


def _value_label(panel: Panel, separator: str = " ") -> str:
    return f"{panel.kind}{separator}({style.UNIT_LABELS.get(panel.unit, panel.unit)})"


def _set_title(axes: Axes, panel: Panel, caption: list[str]) -> None:
    place: dict[str, Any] = {"xy": (0, 1), "xycoords": "axes fraction", "textcoords": "offset points"}
    above = 12.5 + (len(caption) - 1) * style.FOOTER_LINE * 72
    axes.annotate(panel.benchmark, xytext=(0, above), fontweight="bold", **place)
    axes.annotate("\n".join(caption), xytext=(0, 4), fontsize=style.SMALL_SIZE, color=style.QUIET, **place)


def _draw_series(axes: Axes, series: Series, kind: str) -> None:
    look = style.LOOKS[series.origin]
    for value in [0.0] if kind == "change" else series.base_values():
        axes.axhline(value, color=look.color, **_BASE_LINE)
    curve = series.curve()
    if curve:
        axes.plot(series.grid, curve, color=look.color, linestyle=look.line, linewidth=style.LINE, zorder=3)
    for point in series.points:
        _draw_interval(axes, point, look.color, lambda x, y, error, **kw: axes.errorbar(x, y, yerr=error, **kw))
    for step, values in _several_values(series).items():
        axes.plot([step, step], [min(values), max(values)], color=look.color, linewidth=0.8, zorder=3)
    _draw_markers(axes, series, [point.step for point in series.points], [point.value for point in series.points])


def _several_values(series: Series) -> dict[int, list[float]]:
    values = defaultdict(list)
    for point in series.points:
        values[point.step].append(point.value)
    return {step: found for step, found in values.items() if len(found) > 1}


def _draw_interval(axes: Axes, point: Point, color: str, errorbar: Callable[..., object]) -> None:
    if point.low is None or point.high is None:
        return
    centre, half = (point.low + point.high) / 2, (point.high - point.low) / 2
    bar = {"fmt": "none", "ecolor": color, "elinewidth": 0.8, "capsize": style.CAP, "capthick": 0.8, "zorder": 2.5}
    errorbar(point.step, centre, half, **bar)


def _draw_markers(axes: Axes, series: Series, x: list[float] | list[int], y: list[float]) -> None:
    look = style.LOOKS[series.origin]
    for has_note, face in ((False, look.color), (True, "white")):
        chosen = [place for place, point in enumerate(series.points) if bool(point.note) == has_note]
        if chosen:
            where = ([x[place] for place in chosen], [y[place] for place in chosen])
            marks: dict[str, Any] = {"marker": look.marker, "markersize": style.MARKER, "markerfacecolor": face}
            axes.plot(*where, linestyle="none", color=look.color, markeredgewidth=1.0, zorder=4, clip_on=False, **marks)


def _set_value_limits(axes: Axes, panel: Panel) -> None:
    axes.margins(y=0.1)
    low, high = _widened(axes.get_ylim(), panel.unit)
    if panel.unit == "percent":
        margin = style.PERCENT_MARGIN * (high - low)
        low, high = max(low, -margin), min(high, 100 + margin)
    if panel.kind == "length":
        low = 0.0
        axes.yaxis.set_major_formatter(_with_thousands)
    if panel.kind == "truncated":
        low = min(low, 0.0)
    axes.set_ylim(low, high)


def _with_thousands(value: float, _: object) -> str:
    return f"{value:,.0f}"


def _widened(limits: tuple[float, float], unit: str) -> tuple[float, float]:
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
    """A label per step, from the last to the first, on a second line where the first is taken, else none."""
    labels = [""] * len(steps)
    free = [math.inf, math.inf]
    for place in [len(steps) - 1, *range(len(steps) - 1)[::-1]]:
        half = len(str(steps[place])) * style.SMALL_SIZE * 0.64 / 72 / 2 + 0.015  # digits are wide; half the gap
        for line in (0, 1):
            if inches[place] + half <= free[line]:
                labels[place] = "\n" * line + str(steps[place])
                free[line] = inches[place] - half
                break
    return labels


def draw_dots(text: Text, panels: list[Panel]) -> Figure:
    """Values of a single step: one axes per kind and unit, one row per panel."""
    groups: dict[str, list[Panel]] = defaultdict(list)
    for panel in panels:
        groups[_value_label(panel)].append(panel)
    body = sum(len(rows) * style.DOT_ROW_HEIGHT + style.STRIP_GAP + style.AXIS_GAP for rows in groups.values())
    figure, top_of_body = _new_figure(text, body)
    top = top_of_body
    for label, rows in groups.items():
        top -= style.STRIP_GAP
        height = len(rows) * style.DOT_ROW_HEIGHT
        left = style.LEFT + max(map(len, map(_dot_label, panels))) * style.SMALL_SIZE * style.CHARACTER_WIDTH / 72
        axes = _add_axes(figure, left, top, style.WIDTH - left - 2 * style.RIGHT, height)
        _draw_dot_rows(axes, rows)
        axes.set_xlabel(label, labelpad=2)
        top -= height + style.AXIS_GAP
    _add_legend(figure, panels, top_of_body, has_curves=False)
    return figure


def _draw_dot_rows(axes: Axes, rows: list[Panel]) -> None:
    for row, panel in enumerate(rows):
        for series in panel.series:
            look = style.LOOKS[series.origin]
            for point in series.points:
                bar = lambda _, x, error, row=row, **kw: axes.errorbar(x, row, xerr=error, **kw)  # noqa: E731
                _draw_interval(axes, point, look.color, bar)
            _draw_markers(axes, series, [point.value for point in series.points], [float(row)] * len(series.points))
    axes.set_yticks(range(len(rows)), [_dot_label(panel) for panel in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    if rows[0].kind == "change":
        axes.axvline(0.0, color=style.QUIET, **_BASE_LINE)
    low, high = _widened(axes.get_xlim(), rows[0].unit)
    if rows[0].kind == "length":
        low = 0.0
        axes.xaxis.set_major_formatter(_with_thousands)
    axes.set_xlim((0.0, 100.0) if rows[0].unit == "percent" else (low, high))


def _dot_label(panel: Panel) -> str:
    return ": ".join(filter(None, [panel.benchmark, panel.caption()]))


def _new_figure(text: Text, body: float) -> tuple[Figure, float]:
    """A figure with its words, and the height in inches below which the panels go."""
    footer = [part for line in text.footer for part in textwrap.wrap(line, style.FOOTER_CHARACTERS)]
    title = textwrap.wrap(text.title, style.TITLE_CHARACTERS, break_on_hyphens=False)
    subtitle = textwrap.wrap(text.subtitle, style.SUBTITLE_CHARACTERS)
    header = style.HEADER + style.HEADER_LINE * (len(title) + len(subtitle) - 2)
    height = header + body + style.FOOTER_LINE * (len(footer) + 1)
    figure = Figure(figsize=(style.WIDTH, height))
    words: dict[str, Any] = {"x": style.EDGE / style.WIDTH, "va": "top", "ha": "left"}
    figure.text(y=1 - 0.06 / height, s="\n".join(title), fontsize=style.TITLE_SIZE, fontweight="bold", **words)
    below = 0.1 + style.HEADER_LINE * len(title)
    figure.text(y=1 - below / height, s="\n".join(subtitle), fontsize=style.TEXT_SIZE, color=style.QUIET, **words)
    bottom = (0.06 + style.FOOTER_LINE * len(footer)) / height
    figure.text(y=bottom, s="\n".join(footer), fontsize=style.SMALL_SIZE, color=style.QUIET, linespacing=1.15, **words)
    return figure, height - header


def _add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes by their place in inches, `top` counted from the bottom of the figure."""
    total = figure.get_figheight()
    return figure.add_axes((left / style.WIDTH, (top - height) / total, width / style.WIDTH, height / total))


def _add_legend(figure: Figure, panels: list[Panel], top_of_body: float, has_curves: bool) -> None:
    """One line of what the signs mean, just above the panels; only signs that occur."""
    everything = [series for panel in panels for series in panel.series]
    points = [point for panel in panels for point in panel.points]
    handles: list[Artist] = []
    for origin in sorted({series.origin for series in everything}):
        look = style.LOOKS[origin]
        mine = [series for series in everything if series.origin == origin]
        has_line = has_curves and any(series.curve() for series in mine)
        handles.append(_handle(look.label, look.color, marker=look.marker, linestyle=look.line if has_line else "none"))
    if any(panel.kind == "change" for panel in panels) or has_curves and any(s.base_values() for s in everything):
        handles.append(_handle("base (step 0)", style.QUIET, **_BASE_LINE))
    if any(point.low is not None for point in points):
        bar = "|" if has_curves else "_"
        handles.append(_handle("95 % interval", style.QUIET, marker=bar, linestyle="none", markersize=8))
    doubtful = [series.origin for series in everything if any(point.note for point in series.points)]
    if doubtful:
        look = style.LOOKS[doubtful[0]]
        mark = {"marker": look.marker, "linestyle": "none", "markerfacecolor": "white"}
        handles.append(_handle("see note below", look.color, **mark))
    anchor = (style.EDGE / style.WIDTH, (top_of_body + style.LEGEND_HEIGHT) / figure.get_figheight())
    line: dict[str, Any] = {"ncols": len(handles), "frameon": False, "borderpad": 0, "borderaxespad": 0}
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, **line)


def _handle(label: str, color: str, **look: Any) -> Line2D:
    settings = {"linewidth": style.LINE, "markersize": style.MARKER, **look}
    return Line2D([], [], label=label, color=color, **settings)
