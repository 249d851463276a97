"""Everything that the page shows, drawn and judged anew from the results, and the page written."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from analysis.behaviour import behaviour
from analysis.claims import RULE, judge
from analysis.completeness import Matrix, by_benchmark, matrix
from analysis.figures import draw
from analysis.holdings import Library
from analysis.report.cases import all_cases
from analysis.report.cost import costs
from analysis.report.page import render
from analysis.report.pictures import Picture, read_pictures
from analysis.report.places import place_pictures, place_tables
from analysis.report.provenance import facts, source_files
from analysis.report.summary import heads, launches, side_by_side, summarise
from analysis.tables.__main__ import write_all
from analysis.tables.model import Table
from reprokit.records.files import write_bytes, write_text
from reprokit.records.record import Origin


def write_report(results: Path, figures: Path, tables: Path, out: Path) -> tuple[Library, Matrix]:
    """Draw the figures, write the tables, and put all of it into `out/index.html`, the PDF figures beside it.

    Returns:
        What was read, and what of it is there and what is missing.

    Raises:
        UserError: there is no result file, or some cannot be read.
    """
    library = draw(results, figures).holdings
    pictures = read_pictures(figures)
    found = matrix(library)
    write_text(out / "index.html", _page(results, library, found, pictures, write_all(library, tables)))
    for picture in pictures:
        if picture.pdf:
            write_bytes(out / "figures" / picture.pdf, (figures / picture.pdf).read_bytes())
    return library, found


def _page(results: Path, library: Library, found: Matrix, pictures: list[Picture], tables: list[Table]) -> str:
    claims = side_by_side(library, judge(library))
    return render(
        matrix=found,
        lacking=by_benchmark(found.missing),
        launches=launches(found),
        claims=claims,
        heads=heads(claims),
        rule=RULE,
        summary=summarise(library, found, claims),
        pictures=place_pictures(pictures),
        tables=place_tables(tables),
        behaviour=[behaviour(library, run) for run in library.runs("measured") if run in library.details],
        cases=all_cases(library),
        files=source_files(results, library),
        provenance={f"{origin.capitalize()} numbers": facts(library, origin) for origin in get_args(Origin)},
        costs=costs(library),
    )
