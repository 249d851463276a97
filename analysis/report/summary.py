"""What the page says first: claims with their verdicts side by side, and a few sentences made from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

from analysis.claims import CLAIMS, ORIGINS
from analysis.claims.verdict import Status, Verdict
from analysis.completeness import Matrix
from analysis.library import Library
from reprokit.records.record import Origin

MANY = 5  # names beyond these are only counted


@dataclass
class Claim:
    """A claim of the paper, how it is tested, and the verdict on the numbers of each origin."""

    title: str
    statement: str
    where: str
    method: str
    verdicts: dict[Origin, Verdict] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """`verdicts`: origin -> status -> titles of the claims."""

    sentences: list[str]
    verdicts: dict[Origin, dict[Status, list[str]]]


def side_by_side(verdicts: Sequence[Verdict]) -> list[Claim]:
    """One entry per claim, in the order in which they come."""
    claims: dict[str, Claim] = {}
    methods = {claim.id: claim.method for claim in CLAIMS}
    for verdict in verdicts:
        made = Claim(verdict.title, verdict.statement, verdict.where, methods[verdict.claim])
        claim = claims.setdefault(verdict.claim, made)
        claim.verdicts[verdict.origin] = verdict
    return list(claims.values())


def summarise(library: Library, matrix: Matrix, claims: Sequence[Claim]) -> Summary:
    """What was measured and reported, how complete it is, and how the claims stand."""
    return Summary([_measured(library, matrix), _reported(library), _extent(matrix)], _verdicts(claims))


def _measured(library: Library, matrix: Matrix) -> str:
    names = [run.run for run in matrix.runs]
    if not names:
        return "Nothing is measured yet: every number here is one that the paper reports."
    cells, there = sum(len(run.states) for run in matrix.runs), sum(run.results for run in matrix.runs)
    shown = ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")
    have = f"All {_count(cells, 'cell')}" if cells == there else f"{there:,} of {_count(cells, 'cell')}"
    return (
        f"{_count(len(names), 'run')} {'is' if len(names) == 1 else 'are'} measured: {shown}. {have} "
        f"(run × step × benchmark) have a result, {_count(_records(library, 'measured'), 'number')} in all."
    )


def _reported(library: Library) -> str:
    number = _records(library, "reported")
    if not number:
        return "Numbers that the paper reports are not among these results."
    runs = _count(len(library.runs("reported")), "run")
    return f"Beside them stand {_count(number, 'number')} that the paper reports, of {runs} and base models."


def _extent(matrix: Matrix) -> str:
    of_paper = {name for shown in matrix.exhibits for name in shown.runs}
    there = of_paper - set(matrix.absent)
    full = sum(shown.extent == "all" for shown in matrix.exhibits)
    return (
        f"Of the paper's {len(of_paper)} runs and base models {len(there) or 'none'} "
        f"{'is' if len(there) < 2 else 'are'} measured here; of its {len(matrix.exhibits)} figures and tables with "
        f"results {full or 'none'} {'is' if full < 2 else 'are'} measured in full."
    )


def _verdicts(claims: Sequence[Claim]) -> dict[Origin, dict[Status, list[str]]]:
    found: dict[Origin, dict[Status, list[str]]] = {}
    for origin in ORIGINS:
        judged = [(claim.title, claim.verdicts[origin].status) for claim in claims if origin in claim.verdicts]
        states = {state: [title for title, status in judged if status == state] for state in get_args(Status)}
        if judged:
            found[origin] = {state: titles for state, titles in states.items() if titles}
    return found


def _records(library: Library, origin: Origin) -> int:
    return sum(record.origin == origin for file in library.files for record in file.results.records)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
