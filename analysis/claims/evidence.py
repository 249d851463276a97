"""What claims look up: scores of a run and differences of two, remembering every record that was used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from analysis.claims.caveats import Caveats, caveats, unlike
from analysis.claims.runs import TrainedRun, of_main_recipe, trained_runs
from analysis.claims.verdict import Used
from analysis.columns import ACCURACY, CHANGE, NINE_COLUMNS, Column, column_of
from analysis.holdings import BASE_STEP, Library
from analysis.names import SAFETY, benchmark_name, group_of
from analysis.runs import Entry
from analysis.statistics import Difference, Z, difference, from_interval
from reprokit.records.record import Origin

Keep = Callable[[Column], bool]
UNSPECIFIED = "unspecified column"  # of a reported change: which of the columns of its benchmark is not known
Cells = dict[tuple[str, Column], Difference]  # by subject (a model or a run) and column


@dataclass
class Evidence:
    """The numbers of one origin, for the test of one claim; `only` is the run that the person asked for."""

    holdings: Library
    origin: Origin
    only: str | None = None
    used: dict[Used, Entry] = field(default_factory=dict)
    uneven: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    runs: list[TrainedRun] = field(init=False)

    def __post_init__(self) -> None:
        self.runs = trained_runs(self.holdings, self.origin, self.only)

    def label(self, run: TrainedRun) -> str:
        """How a run is called: by its model, or by its name where another run has the same settings."""
        same = [one for one in self.runs if (one.model, one.data, one.recipe) == (run.model, run.data, run.recipe)]
        return run.model if len(same) == 1 else run.name

    def main_runs(self, data: str) -> list[TrainedRun]:
        """The runs on `data` with the recipe of the run asked for, else with that of most models, by size."""
        asked = [run for run in self.runs if run.name == self.only]
        return of_main_recipe([run for run in self.runs if not asked or run.recipe == asked[0].recipe], data)

    def concerns(self, *runs: TrainedRun) -> bool:
        """Whether the person has asked for one of these, or for no single run."""
        return self.only is None or self.only in {run.name for run in runs}

    def use(self, entry: Entry) -> None:
        """Remember that a verdict rests on this record."""
        record = entry.record
        self.used[Used(record.run, record.step, benchmark_name(record.benchmark), entry.file)] = entry

    def caveats(self) -> Caveats:
        """What a reader must know of the numbers used."""
        return caveats(self.holdings, list(self.used.values()), self.uneven, self.left_out)

    def are_alike(self, entries: Sequence[Entry]) -> bool:
        """Whether numbers were evaluated in the same way; remembers those that are left out because they were not."""
        for entry in entries[1:]:
            if why := unlike(self.holdings, entries[0], entry):
                self.left_out.append(f"{benchmark_name(entry.record.benchmark)} of {entry.record.run} ({why})")
                return False
        return True

    def columns(self, run: str) -> list[Column]:
        """The columns of capability that a run has: the paper's nine, and the accuracy of other benchmarks."""
        return [column for column in self.holdings.columns(run, self.origin) if is_capability(column)]

    def last_step(self, *runs: TrainedRun) -> int | None:
        """The last step that all these runs have scores at; None if they share none."""
        shared = set.intersection(*(set(self.holdings.steps(run.name, self.origin)) for run in runs))
        return max(shared, default=None)

    def against_base(self, run: TrainedRun, keep: Keep | None = None) -> Cells:
        """What columns have gained at the last step; a change that is itself reported counts where no score is.

        Args:
            keep: which columns; None: those of capability.
        """
        step = self.last_step(run)
        cells = {} if step is None else self._cells(self.label(run), (run.name, BASE_STEP), (run.name, step), keep)
        return {**self._reported_changes(run, keep), **cells}

    def second_minus_first(self, a: TrainedRun, b: TrainedRun, keep: Keep | None = None) -> Cells:
        """Column by column, as for `against_base`, at the last step that both have."""
        step = self.last_step(a, b)
        if step is not None and (self.last_step(a), self.last_step(b)) != (step, step):
            self.uneven.append(f"{a.name} and {b.name} are compared at step {step}, one of them goes on")
        return {} if step is None else self._cells(self.label(b), (a.name, step), (b.name, step), keep)

    def _cells(self, subject: str, a: tuple[str, int], b: tuple[str, int], keep: Keep | None) -> Cells:
        cells = {}
        for column in filter(keep or is_capability, self.holdings.columns(b[0], self.origin)):
            first, second = self.holdings.best(*a, column, self.origin), self.holdings.best(*b, column, self.origin)
            if first is None or second is None or first.record.unit != second.record.unit:
                continue
            if not self.are_alike((first, second)):
                continue
            self.use(first)
            self.use(second)
            cells[subject, column] = difference(self.holdings, first, second)
        return cells

    def _reported_changes(self, run: TrainedRun, keep: Keep | None) -> Cells:
        cells = {}
        for entry in self.holdings.entries(run.name, self.origin):
            column = column_of(entry.record)
            if column is None or not entry.record.metric.endswith(CHANGE) or not (keep or is_capability)(column):
                continue
            self.use(entry)
            cells[self.label(run), column] = widest_change(entry.record.value, entry.record.items)
        return cells


def is_capability(column: Column) -> bool:
    """Whether a column is one of those that claims take means of: one per benchmark, safety apart."""
    if group_of(column.benchmark) == SAFETY:
        return False
    return column in NINE_COLUMNS or column.measure in (ACCURACY, UNSPECIFIED)


def of_group(group: str) -> Keep:
    """The columns of capability of one group."""
    return lambda column: is_capability(column) and group_of(column.benchmark) == group


def of_columns(*columns: Column) -> Keep:
    """These columns."""
    return lambda column: column in columns


def is_points(column: Column) -> bool:
    """Whether differences of a column are in percentage points, not in the unit of a reward."""
    return column.benchmark != "AlpacaEval 2.0"


def widest_change(value: float, items: int | None) -> Difference:
    """A reported change of a share whose ends are not known: as if both were 50 %, where the spread is largest."""
    if not items:
        return Difference(value, None, None, None, "no spread known", items, None, None)
    half = Z * 100 * (2 * 0.25 / items) ** 0.5
    method = "reported change; the widest interval that its number of items allows"
    return from_interval(value, value - half, value + half, method, items)


def choose(cells: Cells, keep: Keep) -> Cells:
    """Those cells whose column is wanted."""
    return {(subject, column): found for (subject, column), found in cells.items() if keep(column)}
