"""The signs of a figure - markers, intervals, legend - and the words around its panels, in matplotlib."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import text_to_path
from matplotlib.transforms import Transform

from analysis import style
from analysis.panels import Series
from reprokit.records.record import Origin

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
class Signs:
    """What the legend explains: everything that is drawn, whether steps are joined, and lines of bases by name."""

    series: Sequence[Series]
    has_curves: bool
    base_lines: Mapping[str, Mapping[str, Any]]


def render(figure: Figure, extension: str) -> bytes:
    """The figure as a file of that kind, `pdf` or `png`."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format=extension, dpi=style.PNG_DPI, metadata=_METADATA[extension])
    return buffer.getvalue()


def new_figure(text: Text, body: float, signs: Signs) -> tuple[Figure, float]:
    """A figure with its words and legend, and the height in inches below which the panels go."""
    footer = [part for line in text.footer for part in textwrap.wrap(line, style.FOOTER_CHARACTERS)]
    title = textwrap.wrap(text.title, style.TITLE_CHARACTERS, break_on_hyphens=False)
    subtitle = textwrap.wrap(text.subtitle, style.SUBTITLE_CHARACTERS)
    legends = [line for handles in (_run_handles(signs), _sign_handles(signs)) for line in _legend_lines(handles)]
    words_height = style.HEADER + style.HEADER_LINE * (len(title) + len(subtitle) - 2)
    header = words_height + style.LEGEND_LINE * len(legends)
    height = header + body + style.FOOTER_LINE * (len(footer) + 1)
    figure = Figure(figsize=(style.WIDTH, height))
    words: dict[str, Any] = {"x": style.EDGE / style.WIDTH, "va": "top", "ha": "left"}
    figure.text(y=1 - 0.06 / height, s="\n".join(title), fontsize=style.TITLE_SIZE, fontweight="bold", **words)
    below = 0.1 + style.HEADER_LINE * len(title)
    figure.text(y=1 - below / height, s="\n".join(subtitle), fontsize=style.TEXT_SIZE, color=style.QUIET, **words)
    bottom = (0.06 + style.FOOTER_LINE * len(footer)) / height
    figure.text(y=bottom, s="\n".join(footer), fontsize=style.SMALL_SIZE, color=style.QUIET, linespacing=1.15, **words)
    for number, handles in enumerate(legends):
        top = 1 - (words_height + number * style.LEGEND_LINE) / height
        _add_legend(figure, handles, top)
    return figure, height - header


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes by their place in inches, `top` counted from the bottom of the figure."""
    total = figure.get_figheight()
    return figure.add_axes((left / style.WIDTH, (top - height) / total, width / style.WIDTH, height / total))


def base_line(origin: Origin) -> dict[str, Any]:
    """How the line of a base is drawn."""
    return {"linestyle": style.FILLS[origin].base_line, "linewidth": style.THIN, "zorder": 1.5}


def color_of(series: Series) -> str:
    """The colour of a series."""
    return style.look(series.place).color


def draw_intervals(series: Series, errorbar: Callable[..., object]) -> None:
    """The 95 % intervals of a series; `errorbar` gets the steps, centres and half widths of all that have one."""
    bounded = [(point.step, point.low, point.high) for point in series.points]
    found = [
        (step, (low + high) / 2, (high - low) / 2)
        for step, low, high in bounded
        if low is not None and high is not None
    ]
    if found:
        bar: dict[str, Any] = {"elinewidth": style.THIN, "capsize": style.CAP, "capthick": style.THIN}
        errorbar(*map(list, zip(*found, strict=True)), fmt="none", ecolor=color_of(series), zorder=2.5, **bar)


def draw_markers(axes: Axes, series: Series, x: Sequence[float], y: Sequence[float], where: Transform) -> None:
    """One marker per point of the series, hollow where the value is reported, crossed where there is a doubt."""
    look: dict[str, Any] = {"linestyle": "none", "clip_on": False, "transform": where}
    axes.plot(x, y, zorder=4, **look, **_marker(series))
    doubtful = [place for place, point in enumerate(series.points) if point.note]
    if doubtful:
        axes.plot(
            [x[place] for place in doubtful], [y[place] for place in doubtful], zorder=5, **look, **_cross(series)
        )


def _marker(series: Series) -> dict[str, Any]:
    look, face = style.look(series.place), style.FILLS[series.origin].face
    marks: dict[str, Any] = {"marker": look.marker, "markersize": style.MARKER, "color": look.color}
    return marks | {"markerfacecolor": face or look.color, "markeredgewidth": style.EDGE_WIDTH}


def _cross(series: Series) -> dict[str, Any]:
    color = color_of(series) if style.FILLS[series.origin].face else "white"
    cross: dict[str, Any] = {"marker": style.DOUBT_MARKER, "markersize": style.DOUBT, "color": color}
    return cross | {"markeredgewidth": style.THIN}


def _run_handles(signs: Signs) -> list[Artist]:
    """A sign per run or other label, where the figure has several."""
    labels = {series.label: series.place for series in signs.series if series.label}
    filled = {label: Series("measured", [], label, place) for label, place in labels.items()}
    ordered = sorted(filled.values(), key=lambda series: series.place)
    return [_handle(series.label, linestyle="none", **_marker(series)) for series in ordered]


def _sign_handles(signs: Signs) -> list[Artist]:
    """What filling, lines, bars and crosses mean; only those that occur."""
    upright: dict[str, Any] = {"color": style.QUIET, "marker": "|", "linestyle": "none", "markersize": style.BAR}
    handles = _origin_handles(signs)
    handles += [_handle(name, color=style.QUIET, **line) for name, line in signs.base_lines.items()]
    if any(point.low is not None for series in signs.series for point in series.points):
        bar = upright if signs.has_curves else upright | {"marker": "_"}
        handles.append(_handle("95 % interval", **bar))
    if any(series.ranges for series in signs.series):
        handles.append(_handle("reported range", markeredgewidth=style.RANGE, **upright))
    if any(point.note for series in signs.series for point in series.points):
        cross = _cross(Series("reported", [])) | {"color": style.QUIET}
        handles.append(_handle("see note below", linestyle="none", **cross))
    return handles


def _origin_handles(signs: Signs) -> list[Artist]:
    """A sign per origin: in the look of the one run, or neutral where there are several."""
    neutral = {"color": style.QUIET, "marker": "o"} if _run_handles(signs) else {}
    handles: list[Artist] = []
    for origin in sorted({series.origin for series in signs.series if series.points}):
        mine = [series for series in signs.series if series.origin == origin]
        has_line = signs.has_curves and any(series.curve() for series in mine)
        marks = _marker(mine[0]) | neutral
        marks["markerfacecolor"] = style.FILLS[origin].face or marks["color"]
        line = style.FILLS[origin].line if has_line else "none"
        handles.append(_handle(style.FILLS[origin].label, linestyle=line, **marks))
    return handles


def _handle(label: str, **look: Any) -> Line2D:
    settings = {"linewidth": style.LINE, "markersize": style.MARKER, **look}
    return Line2D([], [], label=label, **settings)


def _legend_lines(handles: Sequence[Artist]) -> list[list[Artist]]:
    """As many handles beside each other as the width of a figure has room for."""
    lines: list[list[Artist]] = []
    left = 0.0
    for handle in handles:
        text, _, _ = text_to_path.get_text_width_height_descent(
            str(handle.get_label()), FontProperties(size=style.LEGEND_SIZE), ismath=False
        )
        width = (text + sum(style.LEGEND_SPACING.values()) * style.LEGEND_SIZE) / 72
        if left < width:
            lines.append([])
            left = style.WIDTH - 2 * style.EDGE + style.LEGEND_SPACING["columnspacing"] * style.LEGEND_SIZE / 72
        lines[-1].append(handle)
        left -= width
    return lines


def _add_legend(figure: Figure, handles: list[Artist], top: float) -> None:
    line: dict[str, Any] = {"ncols": len(handles), "frameon": False, "borderpad": 0, "borderaxespad": 0}
    anchor = (style.EDGE / style.WIDTH, top)
    figure.legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, **line, **style.LEGEND_SPACING)
