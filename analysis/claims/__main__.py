"""python -m analysis.claims [results=DIR] [origin=reported|measured] [run=NAME] [claim=ID]

Judges each claim of the paper on the records in DIR (default: `results` in the current folder): reproduced, not
reproduced, undecided, no data. claim=ID shows how one is tested, and every finding behind its verdict.

Exit code 3: done, but measured runs that were judged (with run=: this one) lack cells; it says what fills them.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from analysis.claims import CLAIMS, RULE, Claim, Verdict, judge
from analysis.claims.findings import interval_words, number, p_words
from analysis.claims.verdict import Finding
from analysis.completeness import matrix
from analysis.holdings import Library, read_library
from analysis.names import plural
from analysis.remedy import to_fill
from reprokit.errors import UserError
from reprokit.records.record import Origin
from reprokit.words import PARTIAL, run, split

KEYS = ("results", "origin", "run", "claim")
STYLES = {"reproduced": "green", "not reproduced": "red", "undecided": "yellow", "no data": "dim"}
WIDTH = 150
READING = (
    "Intervals and p-values are about the problems and samples of these checkpoints: another training run may differ. "
    "Claims are not corrected for their number. More items: how many more problems of that kind would decide an effect "
    "as large as the one found, with 80 % power."
)


def claims(words: Sequence[str]) -> int:
    """Do what the words say; returns the exit code.

    Raises:
        UserError: an unknown word, origin, claim or run, or results that cannot be read.
    """
    given = dict(split(words, __doc__ or ""))
    if unknown := set(given) - set(KEYS):
        raise UserError(f"unknown: {', '.join(sorted(unknown))}\n\n{__doc__}")
    origin, chosen = _origin(given.get("origin")), _chosen(given.get("claim"))
    library = read_library(Path(given.get("results", "results")))
    verdicts = judge(library, origin, given.get("run"), chosen)
    console = Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False)
    for which in dict.fromkeys(verdict.origin for verdict in verdicts):
        there = [verdict for verdict in verdicts if verdict.origin == which]
        if "claim" in given:
            _show_detail(console, chosen[0], there[0])
        else:
            console.print(_summary(which, there))
    for text in (f"{RULE} Parts are the findings that claim=ID marks with *.", READING):
        console.print(text, markup=False)
    is_measured = any(verdict.origin == "measured" for verdict in verdicts)
    return PARTIAL if is_measured and _name_missing(console, library, given.get("run")) else 0


def _name_missing(console: Console, library: Library, run_name: str | None) -> bool:
    """Print how many cells measured runs lack and what fills them; returns whether there are any."""
    missing = [cell for cell in matrix(library).missing if run_name in (None, cell.run)]
    if missing:
        runs = ", ".join(dict.fromkeys(cell.run for cell in missing))
        console.print(f"PARTIAL: {plural(len(missing), 'cell')} without a result, of {runs}", markup=False)
        for line in to_fill(library, (cell.run for cell in missing)):
            console.print(line, markup=False, soft_wrap=True)
    return bool(missing)


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: claims(words))


def _origin(word: str | None) -> Origin | None:
    for origin in get_args(Origin):
        if word == origin:
            return origin
    if word is not None:
        raise UserError(f"origin={word}: valid are {' and '.join(get_args(Origin))}; without it, both are judged")
    return None


def _chosen(word: str | None) -> tuple[Claim, ...]:
    chosen = tuple(claim for claim in CLAIMS if word in (None, claim.id))
    if not chosen:
        raise UserError(f"claim={word}: valid are {', '.join(claim.id for claim in CLAIMS)}")
    return chosen


def _summary(origin: str, verdicts: Sequence[Verdict]) -> Table:
    table = Table(title=f"Claims of the paper on {origin} numbers", box=box.SIMPLE_HEAD, title_justify="left")
    for name in ("claim", "verdict", "effect [95 %]", "what was found"):
        table.add_column(name, overflow="fold")
    for verdict in verdicts:
        status = f"[{STYLES[verdict.status]}]{verdict.status}[/]"
        if verdict.more_items is not None:
            status += f"\n{verdict.more_items:,} more items"
        table.add_row(verdict.claim, status, _effect(verdict), escape(verdict.detail))
    return table


def _effect(shown: Verdict | Finding) -> str:
    if shown.effect is None:
        return ""
    return escape(f"{number(shown.effect, shown.unit)}\n{interval_words(shown.low, shown.high, shown.unit)}".rstrip())


def _show_detail(console: Console, claim: Claim, verdict: Verdict) -> None:
    console.print(f"[bold]{claim.title}[/] ({claim.id}), {verdict.origin} numbers")
    console.print(escape(f"Claim ({claim.where}): {claim.statement}"))
    console.print(escape(f"Test: {claim.method}"))
    console.print(f"Verdict: [{STYLES[verdict.status]}]{verdict.status}[/]. {escape(verdict.detail)}")
    if verdict.findings:
        _show_findings(console, verdict)
    else:
        console.print("no findings")


def _show_findings(console: Console, verdict: Verdict) -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("", "part", "subject", "scope", "finding", "p", "detectable", "more items", "numbers"):
        table.add_column(name, overflow="fold")
    for one in verdict.findings:
        p_value = "" if one.p_value is None else p_words(one.p_value).removeprefix("p ").removeprefix("= ")
        reach = "" if one.detectable is None else f"{one.detectable:.1f}"
        more = "" if one.more_items is None else f"{one.more_items:,}"
        names = [escape(word) for word in (one.part, one.subject, one.scope)]
        status = f"[{STYLES[one.status]}]{one.status}[/]"
        table.add_row("*" if one.counts else "", *names, status, p_value, reach, more, escape(one.text))
    console.print(table)
    console.print(f"* counts for the verdict. {plural(len(verdict.records), 'record')} of {_files(verdict)}.")


def _files(verdict: Verdict) -> str:
    return escape(", ".join(sorted({used.file for used in verdict.records})) or "no file")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
