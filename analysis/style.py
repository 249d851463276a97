"""How figures look: one place for colours, markers, sizes and fonts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl


@dataclass(frozen=True)
class Look:
    """How one series of a panel is drawn; the marker tells it apart in grey as well."""

    color: str
    marker: str


@dataclass(frozen=True)
class Fill:
    """How one origin is drawn, whatever the series; `face` None is the colour of the series."""

    label: str
    line: str
    base_line: tuple[int, tuple[float, ...]]
    face: str | None


# Four colours of the Okabe-Ito palette, which colour-blind readers can tell apart, and a near black: in grey the first
# four are of different lightness.
_LOOKS = (
    Look("#0072B2", "o"),
    Look("#D55E00", "s"),
    Look("#262626", "^"),
    Look("#E69F00", "D"),
    Look("#56B4E9", "v"),
    Look("#777777", "P"),
)
FILLS = {
    "measured": Fill("measured", "solid", (0, (4, 3)), None),
    "reported": Fill("reported in the paper", "dashdot", (0, (1, 2)), "white"),
}
DOUBT_MARKER = "x"
QUIET = "#555555"
GRID = "#dddddd"

UNIT_LABELS = {"percent": "%"}
# A smaller range would magnify noise.
MIN_SPAN = {"percent": 10.0, "percentage points": 10.0, "reward": 1.0, "score": 0.5, "tokens": 100.0}
VALUE_MARGIN = 0.1  # of the range of values, above and below
PERCENT_MARGIN = 0.05  # of the range, outside 0..100

# Sizes in inches.
WIDTH = 7.2
COLUMNS = 3
LEFT, RIGHT = 0.62, 0.1
COLUMN_GAP = 0.48
PANEL_HEIGHT, STRIP_HEIGHT, RANGE_HEIGHT, DOT_ROW_HEIGHT = 1.15, 0.45, 0.95, 0.19
TITLE_GAP, STRIP_GAP, AXIS_GAP = 0.36, 0.12, 0.47
HEADER, HEADER_LINE, LEGEND_LINE, FOOTER_LINE, CAPTION_LINE, PANEL_TITLE_LINE = 0.46, 0.16, 0.2, 0.108, 0.12, 0.135
EDGE = 0.08

# Sizes in points.
TITLE_SIZE, TEXT_SIZE, LEGEND_SIZE, SMALL_SIZE = 10.0, 8.0, 7.5, 6.5
MARKER, BAR, DOUBT, LINE, THIN, CAP, RANGE, EDGE_WIDTH = 4.0, 8.0, 2.6, 1.3, 0.8, 1.8, 3.0, 1.0

LEGEND_SPACING = {"columnspacing": 1.4, "handletextpad": 0.5, "handlelength": 1.8}  # in font sizes
DODGE = 0.45  # of a row, between values of several runs or origins that stand in it
TITLE_CHARACTERS, SUBTITLE_CHARACTERS, FOOTER_CHARACTERS = 76, 115, 140
CHARACTER_WIDTH, DIGIT_WIDTH = 0.57, 0.64  # of the font size, on average
BOLD_WIDTH = 1.15  # of the same words
DIGIT_GAP = 0.015  # inches, half the least distance of two labels
ASIDE = 1.5  # points between the series of a panel at one step
PNG_DPI = 160

_SETTINGS: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so it is the same on every machine
    "font.size": TEXT_SIZE,
    "axes.titlesize": TEXT_SIZE,
    "axes.labelsize": TEXT_SIZE - 0.5,
    "xtick.labelsize": SMALL_SIZE,
    "ytick.labelsize": SMALL_SIZE,
    "legend.fontsize": LEGEND_SIZE,
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


def look(place: int) -> Look:
    """The look of the series at a place among others; looks begin again where there are more series."""
    return _LOOKS[place % len(_LOOKS)]


@contextmanager
def figure_style() -> Iterator[None]:
    """This style and nothing of the user's own matplotlib settings, for the time of the context."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield
