"""How figures look: one place for colours, markers, sizes and fonts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl


@dataclass(frozen=True)
class Look:
    """How one origin is drawn; line and marker tell the origins apart in grey as well."""

    label: str
    color: str
    marker: str
    line: str


# Blue and vermilion of the Okabe-Ito palette, which colour-blind readers can tell apart.
LOOKS = {
    "measured": Look("measured", "#0072B2", "o", "solid"),
    "reported": Look("reported in the paper", "#D55E00", "s", "dashdot"),
}
QUIET = "#555555"
GRID = "#dddddd"

UNIT_LABELS = {"percent": "%"}
MIN_SPAN = {"percent": 10.0, "percentage points": 10.0, "reward": 1.0}  # a smaller range would magnify noise
PERCENT_MARGIN = 0.05  # of the range, outside 0..100

# Sizes in inches.
WIDTH = 7.2
COLUMNS = 3
LEFT, RIGHT = 0.62, 0.1
COLUMN_GAP = 0.48
PANEL_HEIGHT, STRIP_HEIGHT, DOT_ROW_HEIGHT = 1.25, 0.55, 0.19
TITLE_GAP, STRIP_GAP, AXIS_GAP = 0.36, 0.12, 0.42
HEADER, HEADER_LINE, LEGEND_HEIGHT, FOOTER_LINE = 0.66, 0.16, 0.2, 0.125
EDGE = 0.08

# Sizes in points.
TITLE_SIZE, TEXT_SIZE, SMALL_SIZE = 10.0, 8.0, 6.5
MARKER, LINE, CAP = 4.0, 1.3, 1.8

TITLE_CHARACTERS, SUBTITLE_CHARACTERS, FOOTER_CHARACTERS = 76, 115, 140
CHARACTER_WIDTH = 0.57  # of the font size, on average
PNG_DPI = 160

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same on every machine
    "font.size": TEXT_SIZE,
    "axes.titlesize": TEXT_SIZE,
    "axes.labelsize": TEXT_SIZE - 0.5,
    "xtick.labelsize": SMALL_SIZE,
    "ytick.labelsize": SMALL_SIZE,
    "legend.fontsize": TEXT_SIZE - 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "pdf.fonttype": 42,  # TrueType: text stays text
    "text.parse_math": False,  # a run name may hold a dollar sign
}


@contextmanager
def figure_style() -> Iterator[None]:
    """This style and nothing of the user's own matplotlib settings, for the time of the context."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield
