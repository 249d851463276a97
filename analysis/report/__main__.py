"""python -m analysis.report [results=DIR] [figures=DIR] [tables=DIR] [out=DIR]

Draws the figures, writes the tables, judges the claims, and puts all of it on one page, `report/index.html`, with the
PDF figures beside it in `report/figures/`. The page needs no network and no other file, so that it can be sent to
anybody. The same results give the same bytes. Exit code 3: some cells of what was measured have no result; the page
says so first.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.completeness import by_benchmark
from analysis.report.build import write_report
from reprokit.errors import UserError
from reprokit.words import PARTIAL, run, split

PROJECT = Path(__file__).resolve().parents[2]


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    folders = {name: PROJECT / name for name in ("results", "figures", "tables")} | {"out": PROJECT / "report"}

    def command() -> int:
        for key, value in split(words, __doc__ or ""):
            if key not in folders or not value:
                raise UserError(
                    f"{key}={value} is not understood; valid: {', '.join(f'{name}=DIR' for name in folders)}"
                )
            folders[key] = Path(value)
        print(f"reporting what is in {folders['results']}", flush=True)
        missing = write_report(**folders).missing
        page = folders["out"] / "index.html"
        print(f"{page} ({page.stat().st_size / 1e6:.1f} MB): open it in a browser")
        for line in by_benchmark(missing):
            print(f"partial: no result yet of {line}")
        return PARTIAL if missing else 0

    return run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
