"""Blocks of values of single steps to matplotlib figures. No number of any run stands here."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import style
from analysis.blocks import Block
from analysis.drawing import in_thousands, value_label, widened
from analysis.marks import Signs, Text, add_axes, base_line, draw_intervals, draw_markers, new_figure
from analysis.panels import Series

_Lines = list[tuple[str, list[Series], bool]]  # label, values, whether it is a heading


def draw_dots(text: Text, blocks: Sequence[Block]) -> Figure:
    """One axes per block, one line per row and per heading."""
    lines = [_lines(block) for block in blocks]
    line_height = style.DOT_ROW_HEIGHT * (1 + style.DODGE * (len(_lanes(blocks)) - 1))
    body = sum(len(found) * line_height + style.STRIP_GAP + style.AXIS_GAP for found in lines)
    series = [series for block in blocks for series in block.series]
    is_change = any(block.kind == "change" for block in blocks)
    zero = {"base (step 0)": base_line("measured")} if is_change else {}
    figure, top = new_figure(text, body, Signs(series, has_curves=False, base_lines=zero))
    longest = max(len(label) * (style.BOLD_WIDTH if bold else 1) for found in lines for label, _, bold in found)
    left = 2 * style.EDGE + longest * style.SMALL_SIZE * style.CHARACTER_WIDTH / 72
    for block, found in zip(blocks, lines, strict=True):
        top -= style.STRIP_GAP
        height = len(found) * line_height
        axes = add_axes(figure, left, top, style.WIDTH - left - 2 * style.RIGHT, height)
        _draw_block(axes, block, found, _lanes(blocks))
        top -= height + style.AXIS_GAP
    return figure


def _lines(block: Block) -> _Lines:
    lines: _Lines = []
    for before, row in pairwise([None, *block.rows]):
        assert row is not None
        if row.group and (before is None or before.group != row.group):
            lines.append((row.group, [], True))
        lines.append((row.label, row.series, False))
    return lines


def _lanes(blocks: Sequence[Block]) -> list[tuple[str, str]]:
    """Values of one row that would lie on each other go beside each other, by origin and, in a row, by run."""
    together = {
        (series.origin, series.label if len({one.label for one in row.series}) > 1 else "")
        for block in blocks
        for row in block.rows
        for series in row.series
    }
    places = {series.label: series.place for block in blocks for series in block.series}
    return sorted(together, key=lambda lane: (places.get(lane[1], 0), lane))


def _draw_block(axes: Axes, block: Block, lines: _Lines, lanes: list[tuple[str, str]]) -> None:
    for number, (_, series, is_heading) in enumerate(lines):
        for one in series:
            _draw_values(axes, one, number + _offset(one, series, lanes))
        if not series and not is_heading:
            words: dict[str, Any] = {"ha": "right", "va": "center", "fontsize": style.SMALL_SIZE, "color": style.QUIET}
            words["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
            axes.text(1, number, "no value known", transform=axes.get_yaxis_transform(), **words)
    axes.set_yticks(range(len(lines)), [label for label, _, _ in lines])
    for tick, (_, _, is_heading) in zip(axes.yaxis.get_major_ticks(), lines, strict=True):
        if is_heading:
            tick.label1.set_fontweight("bold")
            tick.gridline.set_visible(False)
            tick.tick1line.set_visible(False)
    axes.set_ylim(len(lines) - 0.5, -0.5)
    if block.kind == "change":
        axes.axvline(0.0, color=style.QUIET, **base_line("measured"))
    _set_limits(axes, block)
    axes.set_xlabel(value_label(block), labelpad=2)


def _offset(series: Series, row: Sequence[Series], lanes: list[tuple[str, str]]) -> float:
    if len(row) == 1:
        return 0.0
    label = series.label if len({one.label for one in row}) > 1 else ""
    spread = style.DODGE / (1 + style.DODGE * (len(lanes) - 1))
    return (lanes.index((series.origin, label)) - (len(lanes) - 1) / 2) * spread


def _draw_values(axes: Axes, series: Series, height: float) -> None:
    draw_intervals(series, lambda _, x, error, **kw: axes.errorbar(x, [height] * len(x), xerr=error, **kw))
    x = [point.value for point in series.points]
    draw_markers(axes, series, x, [height] * len(x), axes.transData)


def _set_limits(axes: Axes, block: Block) -> None:
    low, high = widened(axes.get_xlim(), block.unit)
    if block.kind == "length":
        low = 0.0
        axes.xaxis.set_major_formatter(in_thousands)
    axes.set_xlim((0.0, 100.0) if block.unit == "percent" else (low, high))
