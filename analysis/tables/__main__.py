"""python -m analysis.tables [results=DIR] [out=DIR] [table=2,9,RUN]

Writes every table of the paper, and one for each other run that has records, as Markdown, CSV and LaTeX: `table_2.md`,
`table_2.csv`, `table_2.tex`, `<run>.md`, ..., and `index.json`, which says what each was made from. With `table=` those
are printed too. Files of runs that are no longer found stay where they are. DIR is `results` and `tables` in the
current folder if none is given.

Exit code 3: done, but measured runs lack results that a table (of those named, if any are) should show; they are
named, and what fills them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from analysis.holdings import Library, read_library
from analysis.names import plural
from analysis.remedy import to_fill
from analysis.tables import NUMBERS, Table, build_all, csv, latex, markdown
from reprokit.errors import UserError
from reprokit.records.files import write_json, write_text
from reprokit.words import PARTIAL, interpreter, options, run

FORMATS = {"md": markdown, "csv": csv, "tex": latex}
INDEX = "index"
MOST_NAMED = 20  # cells without a result that are printed one by one


def write_all(library: Library, out: Path) -> list[Table]:
    """Write all tables and their index into `out`; returns the tables.

    Raises:
        UserError: the name of a run cannot name its files.
    """
    tables = list(build_all(library))
    _check_names(tables)
    for table in tables:
        for extension, text in FORMATS.items():
            write_text(out / f"{table.name}.{extension}", text(table))
    in_tables = {id(entry.record) for table in tables for entry in table.entries}
    without = [
        {"run": entry.record.run, "step": entry.record.step, "benchmark": entry.record.benchmark}
        | {"metric": entry.record.metric, "source": entry.record.source}
        for name in library.runs("reported")
        for entry in library.entries(name, "reported")
        if id(entry.record) not in in_tables
    ]
    write_json(out / f"{INDEX}.json", {"tables": list(map(_index_entry, tables)), "reported_in_no_table": without})
    return tables


def _check_names(tables: Iterable[Table]) -> None:
    seen = {INDEX}
    for table in tables:
        if table.name in seen or Path(table.name).name != table.name or not table.name.isprintable():
            raise UserError(f"the run name {table.name!r} cannot name the files of its table: rename the run")
        seen.add(table.name)


def _index_entry(table: Table) -> dict[str, Any]:
    states = [values.state for values in table.values if values.quantity in ("score", "change against base")]
    return {
        "table": table.name,
        "title": table.title,
        "caption": table.caption,
        "files": [f"{table.name}.{extension}" for extension in FORMATS],
        "cells": {state: states.count(state) for state in sorted(set(states))},
        "missing": list(map(str, table.missing)),
        "made_from": [asdict(source) for source in table.made_from],
    }


def _chosen(tables: Sequence[Table], value: str) -> list[Table]:
    """The tables that `table=` names.

    Raises:
        UserError: there is no such table.
    """
    known = {table.name.removeprefix("table_"): table for table in tables}
    names = [name.strip() for name in value.split(",") if name.strip()]
    if wrong := [name for name in names if name not in known]:
        others = ", ".join(name for name in known if name not in NUMBERS)
        valid = f"{NUMBERS[0]} to {NUMBERS[-1]}{', and runs: ' if others else ''}{others}"
        raise UserError(f"table={','.join(wrong)}: there is no such table. Valid: {valid}")
    return [known[name] for name in names]


def tabulate(words: Sequence[str]) -> int:
    """Do what the words say; returns the exit code.

    Raises:
        UserError: an unknown word or table, no results, or damaged ones.
    """
    defaults = {"results": "results", "out": "tables", "table": ""}
    given = options(words, defaults, __doc__ or "", f".\n\n{__doc__}")
    out = Path(given["out"])
    library = read_library(Path(given["results"]))
    tables = write_all(library, out)
    chosen = _chosen(tables, given["table"]) if given["table"] else []
    print(
        "\n".join(map(markdown, chosen))
        or f"{plural(len(tables), 'table')} of {given['results']} in {out}, listed in {out / INDEX}.json"
    )
    missing = list(dict.fromkeys(lack for table in chosen or tables for lack in table.missing))
    for lack in missing[:MOST_NAMED]:
        print(f"no result: {lack}", file=sys.stderr)
    if len(missing) > MOST_NAMED:
        others = f"and {len(missing) - MOST_NAMED} more: {interpreter()} -m analysis.completeness names all"
        print(others, file=sys.stderr)
    for line in to_fill(library, (lack.run for lack in missing)):
        print(line, file=sys.stderr)
    return PARTIAL if missing else 0


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: tabulate(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
