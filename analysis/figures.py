"""python -m analysis.figures [results=DIR] [out=DIR] [figure=3,6]

Draws the figures of the paper from `results/*.json`: all of 2 to 15, or those that are named. Of a run whose published
checkpoints alone were evaluated they show those, and say so. Without figure=, every measured run that they do not show
gets figures of its own: `figures/<run>/score`, `response_length` and `behaviour`.

Each figure is a PDF and a PNG, and a JSON file that names its records. `figures/index.json` lists them all: of each the
files, heading, caption, what it was made from and what is missing, or why there is no picture. The same records give
the same bytes. Figures of runs that are no longer found stay where they are. DIR is `results` and `figures` in the
current folder if none is given. Exit code 3: some cells of what was drawn have no result; they are named, and what
fills them.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import msgspec
from matplotlib.figure import Figure

from analysis.captions import caption, footer, reason
from analysis.completeness import Lack
from analysis.dots import draw_dots
from analysis.drawing import draw_grid, grid_rows
from analysis.holdings import Library, read_library
from analysis.marks import Text, render
from analysis.names import plural
from analysis.own_plans import own_plans, own_runs
from analysis.panels import cells_in_words
from analysis.plans import Plan, paper_plan
from analysis.remedy import to_fill
from analysis.runs import Entry
from analysis.style import figure_style
from reprokit.errors import UserError
from reprokit.records.details import details_path
from reprokit.records.files import DamagedFileError, read_json, sha256_of_file, write_bytes, write_json
from reprokit.records.paper import FIGURES, exhibit
from reprokit.words import PARTIAL, interpreter, options
from reprokit.words import run as run_command

FORMATS = ("pdf", "png")
PROCESSES = 4  # at most, for drawing
Index = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """Files written, the index last, the plans they were drawn from, and all that was read."""

    paths: list[Path]
    plans: list[Plan]
    holdings: Library


def draw_all(results: Path, out: Path, ids: Sequence[str] = ()) -> list[Path]:
    """Draw figures into `out`; returns the files written, the index last.

    Args:
        ids: numbers of figures of the paper; empty for all of them and those of other measured runs.

    Raises:
        UserError: no result file, or damaged ones (all are named, nothing is drawn), a run name that is no folder
            name, or a figure that the paper does not have.
    """
    return draw(results, out, ids).paths


def draw(results: Path, out: Path, ids: Sequence[str] = ()) -> Drawn:
    """As `draw_all`, with what was meant to be drawn."""
    for number in ids:
        exhibit("figure", number)
    library = read_library(results)
    plans = [paper_plan(library, number) for number in ids or FIGURES]
    for run in () if ids else own_runs(library):
        if Path(run).name != run or run in {".", ".."} or not run.isprintable():
            file = library.entries(run)[0].file
            raise UserError(f"run name {run!r} in {file} cannot name a folder: rename the run")
        plans += own_plans(library, run)
    read = _files_read(library, results)
    entries = [_write(plan, pictures, read, out) for plan, pictures in zip(plans, _all_pictures(plans), strict=True)]
    written = [out / name for entry in entries for name in (*entry["files"], entry["sidecar"]) if name]
    write_json(out / "index.json", _index(out, entries, library, read, bool(ids)))
    return Drawn([*written, out / "index.json"], plans, library)


def _all_pictures(plans: Sequence[Plan]) -> list[list[bytes]]:
    """The files of every plan, in the order of FORMATS; none of a plan without points."""
    workers = min(PROCESSES, len(os.sched_getaffinity(0)))
    with ProcessPoolExecutor(workers, get_context("fork"), initializer=_leave_interrupts_to_the_parent) as pool:
        return list(pool.map(_pictures, plans))


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _pictures(plan: Plan) -> list[bytes]:
    if not plan.points:
        return []
    with figure_style():
        figure = figure_of(plan)
        return [render(figure, extension) for extension in FORMATS]


def _write(plan: Plan, pictures: list[bytes], read: dict[str, str], out: Path) -> Index:
    """Write one figure and describe it; without any value, take away what an earlier one left."""
    files = [f"{plan.name}.{extension}" for extension in FORMATS]
    sidecar = f"{plan.name}.json"
    if not pictures:
        for name in (*files, sidecar):
            (out / name).unlink(missing_ok=True)
        return _entry(plan, [], "", [], {}) | {"reason": reason(plan)}
    for name, content in zip(files, pictures, strict=True):
        write_bytes(out / name, content)
    records = sorted((_named(entry) for entry in _used(plan)), key=lambda named: tuple(map(str, named.values())))
    entry = _entry(plan, files, sidecar, records, read)
    write_json(out / sidecar, entry | {"values": records})
    return entry


def figure_of(plan: Plan) -> Figure:
    """The drawing of a plan that has points."""
    title = plan.run or f"Figure {plan.figure}: {plan.heading}"
    text = Text(title, plan.subtitle, footer(plan))
    return draw_dots(text, plan.blocks) if plan.blocks else draw_grid(text, grid_rows(plan.panels, plan.strips))


def _used(plan: Plan) -> list[Entry]:
    """Every record that a point was made from, once."""
    found = {id(entry.record): entry for point in plan.points for entry in point.entries}
    return list(found.values())


def _named(entry: Entry) -> dict[str, Any]:
    """A record by its place and the digest of its content."""
    record = entry.record
    place = {"file": entry.file, "run": record.run, "step": record.step, "benchmark": record.benchmark}
    digest = hashlib.sha256(msgspec.json.encode(record)).hexdigest()
    return place | {"metric": record.metric, "origin": record.origin, "sha256": digest}


def _entry(plan: Plan, files: list[str], sidecar: str, records: list[dict[str, Any]], read: dict[str, str]) -> Index:
    """What the index says of a figure; a sidecar has the records too."""
    used = [record["file"] for record in records] + [f"details/{run}.json" for run in plan.details]
    sources = [
        {"file": name, "sha256": digest, "records": used.count(name)} for name, digest in read.items() if name in used
    ]
    digests = "".join(sorted(record["sha256"] for record in records))
    return {
        "figure": plan.figure,
        "run": plan.run,
        "heading": plan.heading,
        "caption": caption(plan),
        "files": files,
        "sidecar": sidecar,
        "values_drawn": len(plan.points),
        "made_from": sources,
        "records": {"count": len(records), "sha256": hashlib.sha256(digests.encode()).hexdigest()},
        "missing": {run: list(map(_place, cells)) for run, cells in plan.missing.items()},
        "without_values": plan.unknown,
    }


def _place(lack: Lack) -> dict[str, Any]:
    return {"step": lack.step, "benchmark": lack.benchmark}


def _files_read(library: Library, results: Path) -> dict[str, str]:
    """Digest by name of every results file and every details file."""
    read = {file.name: file.sha256 for file in library.files}
    for run in sorted(library.details):
        path = details_path(results, run)
        read[str(path.relative_to(results))] = sha256_of_file(path)
    return read


def _index(out: Path, entries: list[Index], library: Library, read: dict[str, str], is_part: bool) -> Index:
    """The new index; where only some figures were asked for, the old one with those replaced."""
    if is_part:
        old = _old_index(out / "index.json")
        new = {(entry["run"], entry["figure"]): entry for entry in entries}
        known = {(entry["run"], entry["figure"]): entry for entry in old["figures"]} | new
        order = list(FIGURES)
        by_place = sorted(
            known.items(), key=lambda item: (item[0][0], order.index(item[0][1]) if not item[0][0] else 0)
        )
        return old | {"figures": [entry for _, entry in by_place]}
    return {
        "figures": entries,
        "read": [{"file": name, "sha256": digest} for name, digest in read.items()],
        "files_without_records": [file.name for file in library.files if not file.results.records],
    }


def _old_index(path: Path) -> Index:
    """The index of before; an empty one where there is none, or one of another version."""
    empty: Index = {"figures": [], "read": [], "files_without_records": []}
    try:
        old = read_json(path, dict[str, Any]) if path.exists() else empty
    except DamagedFileError:
        return empty
    return old if "read" in old else empty


def command(words: Sequence[str]) -> int:
    """Do what the words say; returns 3 where a cell of what was drawn has no result.

    Raises:
        UserError: an unknown word, or what `draw_all` raises.
    """
    defaults = {"results": "results", "out": "figures", "figure": ""}
    given = options(words, defaults, __doc__ or "", "; valid: results=DIR out=DIR figure=3,6")
    out = Path(given["out"])
    ids = list(dict.fromkeys(number.strip() for number in given["figure"].split(",") if number.strip()))
    drawn = draw(Path(given["results"]), out, ids)
    for plan in drawn.plans:
        if not plan.points:
            print(f"figure {plan.figure}: {reason(plan, interpreter())}")
    pictures = plural(sum(path.suffix == ".pdf" for path in drawn.paths), "figure")
    print(f"{pictures} (PDF and PNG) of {given['results']} in {out}, listed in {out / 'index.json'}")
    return PARTIAL if _name_missing(drawn) else 0


def _name_missing(drawn: Drawn) -> bool:
    """Print which cells of what was drawn have no result and what fills them; returns whether there are any."""
    missing: dict[str, list[Lack]] = {}
    for plan in drawn.plans:
        for run, cells in plan.missing.items() if plan.points else ():
            found = missing.setdefault(run, [])
            found += [cell for cell in cells if cell not in found]
    for run, cells in missing.items():
        print(f"partial: no result yet of {run}: {', '.join(cells_in_words(cells))}")
    for line in to_fill(drawn.holdings, missing):
        print(line)
    return bool(missing)


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run_command(lambda: command(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
