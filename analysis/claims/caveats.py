"""What a reader must know of the numbers behind a verdict: unlike evaluations, unfinished runs, other problems."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from analysis.columns import column_of
from analysis.holdings import Library
from analysis.names import benchmark_name
from analysis.published import paper_run
from analysis.runs import Entry
from analysis.unlike import evaluation_differences
from reprokit.records.paper import FIGURES, TABLES

# More samples per problem and another seed estimate the same quantity.
_SAME_QUANTITY = ("metric", "samples per item", "settings.samples", "settings.seed")
SHOWN = 3  # names of a longer list


@dataclass(frozen=True)
class Caveats:
    """`open_end`: why the end of a run cannot be judged yet, which leaves a verdict undecided.

    `left_out`: comparisons that were not made; `notes`: the rest.
    """

    open_end: tuple[str, ...]
    left_out: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of them, the most important first."""
        not_yet = (f"Not judged yet: {'; '.join(self.open_end)}.",) if self.open_end else ()
        return (*not_yet, *self.left_out, *self.notes)


def caveats(library: Library, used: Sequence[Entry], uneven: Iterable[str], left_out: Iterable[str]) -> Caveats:
    """Of the records that a claim has used.

    Args:
        uneven: pairs of runs that were compared before the end of one of them, in words.
        left_out: comparisons that were not made, in words.
    """
    measured = [entry for entry in used if entry.record.origin == "measured"]
    last = {entry.record.run: 0 for entry in measured}
    for entry in measured:
        last[entry.record.run] = max(last[entry.record.run], entry.record.step)
    open_end = [words for run, step in sorted(last.items()) if (words := _unfinished(library, run, step))]
    names = list(dict.fromkeys(left_out))
    notes = [words for run in sorted(last) if (words := _missing(library, run))]
    notes += _other_runs(measured) + _other_problems(library, measured) + _published(measured)
    gone = (f"Left out, for they were evaluated differently: {_listed(names)}.",) if names else ()
    return Caveats((*open_end, *dict.fromkeys(uneven)), gone, tuple(notes))


def unlike(library: Library, first: Entry, second: Entry) -> str:
    """Why two measured numbers cannot be compared as if only the models differed; empty where they can."""
    column = column_of(first.record)
    if first.record.origin != "measured" or second.record.origin != "measured" or column is None:
        return ""
    found = evaluation_differences(library, {column: (first, second)})
    spoiled = [one for one in found if one.spoils and one.what not in _SAME_QUANTITY]
    return f"{spoiled[0].what} {spoiled[0].first} / {spoiled[0].second}" if spoiled else ""


def _unfinished(library: Library, run: str, step: int) -> str:
    """A later step is missing, or at this step more benchmarks are missing than are there."""
    missing = library.missing(run)
    later = sorted({cell.step for cell in missing if cell.step > step})
    if later:
        return f"{run} is not finished: step {later[-1]} is missing"
    there = {entry.record.benchmark for entry in library.entries(run, "measured") if entry.record.step == step}
    lacking = {cell.benchmark for cell in missing if cell.step == step}
    return f"{run} lacks most benchmarks at step {step}" if len(lacking) > len(there) else ""


def _missing(library: Library, run: str) -> str:
    missing = library.missing(run)
    names = sorted({benchmark_name(cell.benchmark) for cell in missing})
    return f"{run} lacks {len(missing)} of its results ({_listed(names)})." if missing else ""


def _other_runs(measured: Sequence[Entry]) -> list[str]:
    papers = {run for shown in (*FIGURES.values(), *TABLES.values()) for run in shown.runs}
    is_other = measured and not papers & {paper_run(entry.record.run) for entry in measured}
    return ["None of these runs is one of the paper's: other models, data or settings."] if is_other else []


def _other_problems(library: Library, measured: Sequence[Entry]) -> list[str]:
    """Measured on another number of problems than the paper's benchmark of that name has."""
    papers = {
        column_of(entry.record): entry.record.items
        for run in library.runs("reported")
        for entry in library.entries(run, "reported")
        if entry.record.items
    }
    found = {}
    for entry in measured:
        here, there = entry.record.items, papers.get(column_of(entry.record))
        if here and there and here != there:
            found[benchmark_name(entry.record.benchmark)] = f"{here:,} of {there:,}"
    words = _listed([f"{name} {numbers}" for name, numbers in sorted(found.items())])
    return [f"Not on the paper's number of problems: {words}."] if found else []


def _published(measured: Sequence[Entry]) -> list[str]:
    kinds = {entry.record.checkpoints for entry in measured if entry.record.step > 0}
    both = {"published", "training"} <= kinds
    return ["Some of these checkpoints are published ones, others were trained here."] if both else []


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
