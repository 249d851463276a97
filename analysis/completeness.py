"""What of the measured runs and of the paper's figures and tables is there, and what is missing.

    python -m analysis.completeness [results=DIR]      # default: results in the current folder

Prints run x step x benchmark of every measured run, and for every figure and table of the paper how much of it has
been measured. Exit code 3 if a measured run lacks cells; then it also says how to fill them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.table import Table

from analysis.columns import NINE_COLUMNS, SAFETY_COLUMNS, Column
from analysis.holdings import BASE_STEP, Library, read_library
from analysis.names import benchmark_name, benchmark_place, plural
from analysis.paper_recipes import paper_recipes
from analysis.published import measured_run
from analysis.remedy import to_fill
from reprokit.errors import UserError
from reprokit.recipe import evaluated_steps
from reprokit.records.paper import FIGURES, TABLES, Exhibit, base_of
from reprokit.words import PARTIAL, interpreter, run, split

LOG_WIDTH = 160  # columns where the output is no terminal

State = Literal["result", "missing", "gap"]
Extent = Literal["all", "some", "none"]
_TOUCHED: tuple[Extent, ...] = ("all", "some")
_MARKS = {"result": "+", "missing": "MISSING", "gap": "GAP"}
_HEADLINES = {column.benchmark: column for column in (*NINE_COLUMNS, SAFETY_COLUMNS[0])}
_REWARDS = Column("AlpacaEval 2.0").benchmark


@dataclass(frozen=True, order=True)
class Lack:
    """One cell that should have a result; `benchmark` is its display name."""

    run: str
    step: int
    benchmark: str

    def __str__(self) -> str:
        return f"{self.run}, step {self.step}, {self.benchmark}"


@dataclass(frozen=True)
class RunMatrix:
    """Steps x benchmarks (display names, in the paper's order) of one measured run.

    State of a cell: `result`; `missing`, which the recipe asks for; `gap`, which other benchmarks have at this step and
    this one has at other steps, though no recipe asks for it now. `is_planned` is False for the results of another
    harness: nobody knows what was planned there, so that nothing can be called complete.
    """

    run: str
    steps: tuple[int, ...]
    benchmarks: tuple[str, ...]
    states: dict[tuple[int, str], State]
    is_planned: bool

    @property
    def lacking(self) -> list[Lack]:
        """The cells without a result, by step."""
        return [
            Lack(self.run, step, name)
            for step in self.steps
            for name in self.benchmarks
            if self.states[step, name] != "result"
        ]

    @property
    def results(self) -> int:
        """Number of cells with a result."""
        return sum(state == "result" for state in self.states.values())

    @property
    def summary(self) -> str:
        """For example `34 of 36 cells`."""
        count = f"{self.results} of {len(self.states)} cells"
        return count if self.is_planned else f"{self.results} cells of another harness: unknown what was planned"


@dataclass(frozen=True)
class ExhibitState:
    """How much of a figure or table of the paper has been measured: by run, base models among them.

    A run whose published checkpoints alone were evaluated has the name of that evaluation.
    """

    kind: Literal["figure", "table"]
    number: str
    runs: dict[str, Extent]

    @property
    def extent(self) -> Extent:
        """`all` only if every run is."""
        found = set(self.runs.values())
        return found.pop() if len(found) == 1 else "some"

    def having(self, extent: Extent) -> list[str]:
        """The runs of which that much is there."""
        return [name for name, found in self.runs.items() if found == extent]


@dataclass(frozen=True)
class Matrix:
    """All measured runs, and what they give of the paper."""

    runs: tuple[RunMatrix, ...]
    exhibits: tuple[ExhibitState, ...]

    @property
    def missing(self) -> list[Lack]:
        """Every cell of a measured run without a result."""
        return [cell for one in self.runs for cell in one.lacking]

    @property
    def is_partial(self) -> bool:
        """Whether any measured run lacks a cell."""
        return bool(self.missing)

    @property
    def absent(self) -> list[str]:
        """Runs of the paper of which nothing was measured."""
        extents: dict[str, set[Extent]] = {}
        for shown in self.exhibits:
            for name, extent in shown.runs.items():
                extents.setdefault(name, set()).add(extent)
        return sorted(name for name, found in extents.items() if found == {"none"})


def matrix(library: Library) -> Matrix:
    """What is there and what is missing of all measured runs and of the paper's figures and tables.

    Of the paper's runs those steps are needed that their recipes evaluate.
    """
    planned = {file.results.run for file in library.files if file.results.missing}
    names = sorted({*library.runs("measured"), *planned})
    figures = [_exhibit_state(library, "figure", number, shown) for number, shown in FIGURES.items()]
    tables = [_exhibit_state(library, "table", number, shown) for number, shown in TABLES.items()]
    return Matrix(tuple(run_matrix(library, name) for name in names), (*figures, *tables))


def run_matrix(library: Library, name: str) -> RunMatrix:
    """Of one run; without cells if nothing of it was measured or planned here."""
    records = [entry.record for entry in library.entries(name, "measured")]
    there = {(record.step, benchmark_name(record.benchmark)) for record in records}
    missing = {(cell.step, benchmark_name(cell.benchmark)) for cell in library.missing(name)}
    steps = sorted({step for step, _ in there | missing})
    benchmarks = sorted({benchmark for _, benchmark in there | missing}, key=benchmark_place)
    is_planned = bool(missing) or any(record.source is None for record in records)  # of another harness have one
    states: dict[tuple[int, str], State] = {}
    for cell in ((step, benchmark) for step in steps for benchmark in benchmarks):
        states[cell] = "missing" if cell in missing else "result" if cell in there else "gap"
    return RunMatrix(name, tuple(steps), tuple(benchmarks), states, is_planned)


def _exhibit_state(library: Library, kind: Literal["figure", "table"], number: str, shown: Exhibit) -> ExhibitState:
    """Runs in the paper's order, base models before the runs that start from them."""
    columns = [_HEADLINES[benchmark_name(name)] for name in shown.benchmarks]
    columns += [Column(_REWARDS, judge) for judge in shown.judges]
    extents: dict[str, Extent] = {}
    for name in shown.runs:
        base = base_of(name)
        if shown.base and base is not None and base not in extents:
            extents[base] = _extent(library, name, [BASE_STEP], columns)
        if shown.steps != "base":
            measured = measured_run(library, name)
            extents[measured] = _extent(library, measured, _steps(name, shown), columns)
    return ExhibitState(kind, number, extents)


def _steps(name: str, shown: Exhibit) -> Sequence[int]:
    """The steps above 0 that a figure or table shows of a run."""
    steps = [step for step in _paper_steps(name) if step > BASE_STEP]
    return steps[-1:] if shown.steps == "last" else [step for step in steps if step not in shown.omitted]


@cache
def _paper_steps(name: str) -> tuple[int, ...]:
    return tuple(evaluated_steps(paper_recipes()[name].recipe))


def _extent(library: Library, name: str, steps: Iterable[int], columns: Iterable[Column]) -> Extent:
    found = {library.best(name, step, column, "measured") is not None for step, column in product(steps, columns)}
    return "all" if found == {True} else "none" if found == {False} else "some"


def print_matrix(found: Matrix, console: Console) -> None:
    """Every measured run as a table, the cells that lack a result by name, and the paper's figures and tables."""
    for one in found.runs:
        _print_run(one, console)
    if not found.runs:
        console.print("nothing is measured yet")
    _print_exhibits(found, console)
    if found.is_partial:
        runs = plural(len({cell.run for cell in found.missing}), "measured run")
        have = "has" if len(found.missing) == 1 else "have"
        console.print(f"\nPARTIAL: {plural(len(found.missing), 'cell')} of {runs} {have} no result:")
        for line in by_benchmark(found.missing):
            console.print(f"  {line}")


def by_benchmark(cells: Iterable[Lack]) -> list[str]:
    """`mini: Countdown at steps 40, 80`, one line per run and benchmark."""
    steps: dict[tuple[str, str], list[int]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.run, benchmark_place(cell.benchmark), cell.step)):
        steps.setdefault((cell.run, cell.benchmark), []).append(cell.step)
    return [
        f"{name}: {benchmark} at step{'s' * (len(found) > 1)} {', '.join(map(str, found))}"
        for (name, benchmark), found in steps.items()
    ]


def _print_run(one: RunMatrix, console: Console) -> None:
    console.print(f"\n{one.run}: {one.summary}")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("step", *map(str, one.steps)):
        table.add_column(heading)
    for name in one.benchmarks:
        table.add_row(name, *(_MARKS[one.states[step, name]] for step in one.steps))
    console.print(table)
    if "gap" in one.states.values():
        console.print(
            "GAP: other benchmarks have a result at this step, and no recipe asks for this one now: "
            "add it to the recipe of the run"
        )


def _print_exhibits(found: Matrix, console: Console) -> None:
    console.print("\nThe paper's figures and tables: which of their runs (base models too) are measured")
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1))
    for heading in ("", "runs measured in full", "runs measured in part", "other runs, not measured"):
        table.add_column(heading)
    for shown in found.exhibits:
        if shown.extent != "none":
            named = ("\n".join(shown.having(extent)) for extent in _TOUCHED)
            table.add_row(f"{shown.kind} {shown.number}", *named, str(len(shown.having("none"))))
    if table.row_count:
        console.print(table)
    untouched = [f"{shown.kind} {shown.number}" for shown in found.exhibits if shown.extent == "none"]
    if untouched:
        console.print(f"Nothing is measured of {_folded(untouched)}.")
    console.print(f"{len(found.absent)} of the paper's runs and base models have no measured result yet.")


def _folded(names: Sequence[str]) -> str:
    """`figure 2, figure 3, table 1` -> `figures 2, 3; tables 1`."""
    numbers: dict[str, list[str]] = {}
    for kind, _, number in (name.partition(" ") for name in names):
        numbers.setdefault(kind, []).append(number)
    return "; ".join(f"{kind}s {', '.join(found)}" for kind, found in numbers.items())


def show(words: Sequence[str]) -> bool:
    """Print what the words ask for; returns whether a measured run lacks cells.

    Raises:
        UserError: an unknown word, or results that cannot be read.
    """
    given = dict(split(words, __doc__ or ""))
    if unknown := set(given) - {"results"}:
        raise UserError(f"unknown: {', '.join(sorted(unknown))}\n\n{__doc__}")
    library = read_library(Path(given.get("results", "results")))
    found = matrix(library)
    console = Console(width=None if sys.stdout.isatty() else LOG_WIDTH, markup=False, highlight=False)
    print_matrix(found, console)
    redraw = f"{interpreter()} -m analysis.report draws and writes all anew"
    for line in to_fill(library, (cell.run for cell in found.missing), redraw):
        console.print(line, soft_wrap=True)
    return found.is_partial


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: PARTIAL if show(words) else 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
