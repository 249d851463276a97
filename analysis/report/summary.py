"""What the page says first: a few sentences made from the records, and how the claims stand on which runs."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import get_args

from analysis.claims import CLAIMS
from analysis.claims.verdict import Status, Verdict
from analysis.completeness import Matrix
from analysis.holdings import Library
from analysis.published import paper_run
from reprokit.records.paper import base_of
from reprokit.records.record import Origin

MANY = 5  # names beyond these are only counted


@dataclass(frozen=True)
class Judged:
    """Measured runs that verdicts rest on, without base models: those of the paper, and others (`own`)."""

    papers: tuple[str, ...]
    own: tuple[str, ...]

    @property
    def is_own(self) -> bool:
        """Whether there are runs, and none of them is the paper's."""
        return bool(self.own) and not self.papers

    @property
    def words(self) -> str:
        """For example `measured runs of the paper (A, B) and runs of your own (mini)`."""
        if self.is_own:
            return f"runs of your own ({_names(self.own)}), none of them the paper's"
        beside = f" and runs of your own ({_names(self.own)})" if self.own else ""
        return f"measured runs of the paper ({_names(self.papers)}){beside}" if self.papers else "measured numbers"


@dataclass
class Claim:
    """A claim of the paper, its test, the verdict on the numbers of each origin, and the runs behind the measured."""

    title: str
    statement: str
    where: str
    method: str
    verdicts: dict[Origin, Verdict] = field(default_factory=dict)
    judged: Judged = Judged((), ())


@dataclass(frozen=True)
class Group:
    """Verdicts on numbers of one kind: status -> titles of the claims. `is_own`: no run behind them is the paper's."""

    heading: str
    origin: Origin
    is_own: bool
    titles: dict[Status, list[str]]


@dataclass(frozen=True)
class Summary:
    """Sentences, and the claims by what they were judged on."""

    sentences: list[str]
    groups: list[Group]


def launches(matrix: Matrix) -> list[str]:
    """The commands that make what recipes ask for and measured runs lack, one for each run."""
    lacking = [run.run for run in matrix.runs if "missing" in run.states.values()]
    return [f"python -m reprokit.launch {shlex.quote(f'recipe=runs/{name}/recipe.yaml')}" for name in lacking]


def side_by_side(library: Library, verdicts: Sequence[Verdict]) -> list[Claim]:
    """One entry per claim, in the order in which they come."""
    claims: dict[str, Claim] = {}
    methods = {claim.id: claim.method for claim in CLAIMS}
    for verdict in verdicts:
        made = Claim(verdict.title, verdict.statement, verdict.where, methods[verdict.claim])
        claim = claims.setdefault(verdict.claim, made)
        claim.verdicts[verdict.origin] = verdict
        if verdict.origin == "measured":
            claim.judged = _judged(library, verdict)
    return list(claims.values())


def summarise(library: Library, matrix: Matrix, claims: Sequence[Claim]) -> Summary:
    """What was measured and reported, how complete it is, and how the claims stand."""
    return Summary([_measured(library, matrix), _reported(library), _extent(matrix)], _groups(claims))


def heads(claims: Sequence[Claim]) -> dict[Origin, str]:
    """What the verdicts on the numbers of each origin were made on, in words."""
    there = {origin for claim in claims for origin in claim.verdicts}
    words: dict[Origin, str] = {"measured": _together(claims).words, "reported": "reported numbers"}
    return {origin: text for origin, text in words.items() if origin in there}


def _judged(library: Library, verdict: Verdict) -> Judged:
    runs = sorted({used.run for used in verdict.records if used.run != library.base(used.run)})
    papers = tuple(run for run in runs if base_of(paper_run(run)) is not None)
    return Judged(papers, tuple(run for run in runs if run not in papers))


def _together(claims: Iterable[Claim]) -> Judged:
    judged = [claim.judged for claim in claims]
    papers, own = {run for one in judged for run in one.papers}, {run for one in judged for run in one.own}
    return Judged(tuple(sorted(papers)), tuple(sorted(own)))


def _measured(library: Library, matrix: Matrix) -> str:
    names = [run.run for run in matrix.runs]
    if not names:
        return "Nothing is measured yet: every number here is one that the paper reports."
    cells, there = sum(len(run.states) for run in matrix.runs), sum(run.results for run in matrix.runs)
    have = f"All {_count(cells, 'cell')}" if cells == there else f"{there:,} of {_count(cells, 'cell')}"
    return (
        f"{_count(len(names), 'run')} {'is' if len(names) == 1 else 'are'} measured: {_names(names)}. {have} "
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


def _groups(claims: Sequence[Claim]) -> list[Group]:
    """Measured verdicts on the paper's runs, those on other runs alone, reported ones; no data is with the first."""
    everything = _together(claims)
    own = [claim for claim in claims if claim.judged.is_own or everything.is_own]
    papers = [claim for claim in claims if claim not in own]
    groups = [
        _group(papers, "measured", _together(papers)),
        _group(own, "measured", _together(own)),
        _group(claims, "reported", None),
    ]
    return [group for group in groups if group.titles]


def _group(claims: Sequence[Claim], origin: Origin, judged: Judged | None) -> Group:
    found = [(claim.title, claim.verdicts[origin].status) for claim in claims if origin in claim.verdicts]
    titles = {state: [title for title, status in found if status == state] for state in get_args(Status)}
    on = judged.words if judged else f"{origin} numbers"
    is_own = judged is not None and judged.is_own
    return Group(f"Claims on {on}", origin, is_own, {state: names for state, names in titles.items() if names})


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:MANY]) + (f" and {len(names) - MANY} more" if len(names) > MANY else "")


def _records(library: Library, origin: Origin) -> int:
    return sum(record.origin == origin for file in library.files for record in file.results.records)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
