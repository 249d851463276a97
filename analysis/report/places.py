"""Where on the page figures and tables stand: those of the user's own runs first, each with an anchor."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.report.pictures import Picture
from analysis.tables.model import Table


def place_pictures(pictures: Iterable[Picture]) -> list[tuple[str, Picture]]:
    """Each with its anchor: `figure-3`, or `own-figure-1` for one that the paper does not have."""
    return sorted(
        ((f"figure-{one.number}" if one.number else f"own-figure-{place}", one) for place, one in enumerate(pictures)),
        key=lambda placed: placed[1].number is not None,
    )


def place_tables(tables: Iterable[Table]) -> list[tuple[str, Table]]:
    """Each with its anchor, as of pictures; a run of which nothing is measured comes after the paper's tables."""
    return sorted(
        ((f"table-{one.number}" if one.number else f"own-table-{place}", one) for place, one in enumerate(tables)),
        key=lambda placed: placed[1].number is not None or known(placed[1]) != "measured",
    )


def known(table: Table) -> str:
    """What is known of its values: `measured` (all or some), `reported` alone or `none`; `words`: it has no values."""
    if not table.values:
        return "words"
    if any(values.measured for values in table.values):
        return "measured"
    return "reported" if any(values.reported for values in table.values) else "none"
