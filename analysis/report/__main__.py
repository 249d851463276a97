"""python -m analysis.report [results=DIR] [figures=DIR] [tables=DIR] [out=DIR]

Draws the figures, writes the tables, judges the claims, and puts all of it on one page, `report/index.html`, with the
PDF figures beside it in `report/figures/`. The page needs no network and no other file, so that it can be sent to
anybody. The same results give the same bytes. Folders that are not named are those of the current folder.

Exit code 3: some cells of what was measured have no result; the page says so first, and which command makes them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.completeness import by_benchmark
from analysis.remedy import to_fill
from analysis.report.build import write_report
from reprokit.words import PARTIAL, options, run


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    defaults = {"results": "results", "figures": "figures", "tables": "tables", "out": "report"}

    def command() -> int:
        valid = ", ".join(f"{name}=DIR" for name in defaults)
        given = options(words, defaults, __doc__ or "", f"; valid: {valid}")
        folders = {name: Path.cwd() / value for name, value in given.items()}
        print(f"reporting what is in {folders['results']}", flush=True)
        library, found = write_report(**folders)
        page = folders["out"] / "index.html"
        print(f"{page} ({page.stat().st_size / 1e6:.1f} MB): open it in a browser")
        for line in by_benchmark(found.missing):
            print(f"partial: no result yet of {line}")
        for line in to_fill(library, (cell.run for cell in found.missing)):
            print(line)
        return PARTIAL if found.missing else 0

    return run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
