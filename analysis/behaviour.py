"""python -m analysis.behaviour run=NAME [results=DIR]

What the responses of a run look like, checkpoint by checkpoint: backtracking, verification, sub-goals, enumeration and
repetition loops, response lengths by finished and truncated, thinking that never ends. Prints a table per benchmark and
says what is not there. DIR is `results` in the current folder if none is given.

Exit code 3: some cells have no details.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from analysis.holdings import BASE_STEP, Library, read_library
from analysis.names import benchmark_name, benchmark_place
from analysis.remedy import to_fill
from analysis.runs import Entry
from reprokit import words as command_line
from reprokit.errors import UserError
from reprokit.records.details import CellDetails

LOG_WIDTH = 140  # columns of the tables where the output is no terminal


@dataclass(frozen=True)
class Share:
    """A share of responses in 0..1 with its 95 % interval: Wilson's."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Rate:
    """One detector on one cell: the share of responses with it, and how often it found something per 1,000 tokens."""

    share: Share
    per_thousand_tokens: float


@dataclass(frozen=True)
class Row:
    """One checkpoint on one benchmark; `rates` by detector, lengths in tokens, None where no response is of the kind.

    `run` is the run that was evaluated: at step 0 this may be the base model's own.
    """

    run: str
    step: int
    benchmark: str  # display name
    responses: int
    rates: dict[str, Rate]
    finished: Share
    unfinished_thinking: Share
    mean_tokens_finished: float | None
    mean_tokens_truncated: float | None


@dataclass(frozen=True)
class BehaviourTable:
    """Rows by benchmark in the paper's order, then by step; `missing` names cells without details, in words."""

    run: str
    detectors: list[str]
    rows: list[Row]
    missing: list[str]

    @property
    def benchmarks(self) -> list[str]:
        """Display names, in the order of the rows."""
        return list(dict.fromkeys(row.benchmark for row in self.rows))

    def of(self, benchmark: str) -> list[Row]:
        """Rows of one benchmark by step."""
        return [row for row in self.rows if row.benchmark == benchmark]


def behaviour(library: Library, run: str) -> BehaviourTable:
    """Everything that is known of the responses of a measured run; step 0 is its base model's where it has none itself.

    Raises:
        UserError: no measured run of this name; the message names those that there are.
    """
    if run not in (there := library.runs("measured")):
        raise UserError(f"run={run}: there are no measured results of it; there are: {', '.join(there) or 'none'}")
    rows, missing = {}, []
    for entry in _entries(library, run):
        record, details = entry.record, library.cell_details(entry)
        name = benchmark_name(record.benchmark)
        if details is None:
            missing.append(f"{name}, step {record.step}: results, but no details")
        else:
            rows[name, record.step] = _row(record.run, name, details)
    missing += [f"{benchmark_name(cell.benchmark)}, step {cell.step}: no results" for cell in library.missing(run)]
    ordered = [rows[key] for key in sorted(rows, key=lambda key: (benchmark_place(key[0]), key[1]))]
    detectors = list(dict.fromkeys(name for row in ordered for name in row.rates))
    return BehaviourTable(run, detectors, ordered, list(dict.fromkeys(missing)))


def _entries(library: Library, run: str) -> list[Entry]:
    """A measured record of every cell of the run, one for each of its columns, and of its base's cells at step 0."""
    columns = library.columns(run, "measured")
    steps = [BASE_STEP, *library.steps(run, "measured")]
    found = (library.best(run, step, column, "measured") for step in steps for column in columns)
    return [entry for entry in found if entry is not None]


def _row(run: str, benchmark: str, details: CellDetails) -> Row:
    # Samples of one item resemble each other: an interval that counts items is not too narrow.
    trials = min(len(details.items) or details.responses, details.responses)
    counts = {name: found.responses for name, found in details.behaviour.items()}
    shares = {name: _share(count / details.responses, trials) for name, count in counts.items()}
    return Row(
        run=run,
        step=details.step,
        benchmark=benchmark,
        responses=details.responses,
        rates={name: Rate(shares[name], found.per_thousand_tokens) for name, found in details.behaviour.items()},
        finished=_share(details.finished.responses / details.responses, trials),
        unfinished_thinking=_share(details.unfinished_thinking / details.responses, trials),
        mean_tokens_finished=details.finished.mean_tokens,
        mean_tokens_truncated=details.truncated.mean_tokens,
    )


def _share(value: float, trials: int) -> Share:
    from statsmodels.stats.proportion import proportion_confint  # takes a second to import

    low, high = proportion_confint(value * trials, trials, method="wilson")
    return Share(value, float(low), float(high))


def show(table: BehaviourTable, console: Console) -> None:
    """Print a table per benchmark, then what is missing."""
    for benchmark in table.benchmarks:
        title = f"{benchmark}: percent of responses, times per 1,000 tokens, [95 % interval of the percentage]"
        shown = Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
        ends = ("truncated", "tokens, finished", "tokens, truncated")
        for heading in ("step", "responses", *table.detectors, "unfinished thinking", *ends):
            shown.add_column(heading.replace("_", " "), justify="right")
        for row in table.of(benchmark):
            shown.add_row(*_cells(row, table.detectors))
        console.print(shown)
    if any(row.run != table.run for row in table.rows):
        console.print("step 0 is the base model's own run")
    for line in table.missing:
        console.print(f"not there: {line}")


def _cells(row: Row, detectors: Sequence[str]) -> list[str]:
    rates = [_percent(row.rates[name].share, f", {row.rates[name].per_thousand_tokens:.2f}") for name in detectors]
    truncated = f"{100 * (1 - row.finished.value):.1f}"
    means = [_tokens(row.mean_tokens_finished), _tokens(row.mean_tokens_truncated)]
    return [str(row.step), f"{row.responses:,}", *rates, _percent(row.unfinished_thinking), truncated, *means]


def _percent(share: Share, more: str = "") -> str:
    return f"{100 * share.value:.1f}{more}\n[{100 * share.low:.0f}, {100 * share.high:.0f}]"


def _tokens(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:,.0f}"


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""

    def command() -> int:
        given = dict(command_line.split(words, __doc__ or ""))
        if "run" not in given or set(given) - {"run", "results"}:
            raise UserError(f"give run=NAME, and results=DIR if it is not ./results\n\n{__doc__}")
        library = read_library(Path(given.get("results", "results")))
        table = behaviour(library, given["run"])
        show(table, Console(width=None if sys.stdout.isatty() else LOG_WIDTH, markup=False, highlight=False))
        for line in to_fill(library, [given["run"]]):
            print(line)
        return command_line.PARTIAL if table.missing else 0

    return command_line.run(command)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
