"""python -m analysis.compare A B [step=N | step=N,M] [results=DIR]

Compares two runs column by column: difference B - A with its 95 % interval, p-value, and the smallest difference that
so many problems would have found; and how high and how low each came in the course of its training. A and B are runs
(`mini`), those numbers of them that the paper reports (`Qwen3-4B_Math-CoT-20k_lr5e-5_ep8_bs256@reported`), or `paper`:
what it reports of the other run. Steps: the last of each if none is given, `step=N` of both, `step=N,M` of A and B.
DIR is `results` in the current folder if none is given.

Exit code 3: done, but in some column one of the two, or both, have no number at that step.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.columns import Column
from analysis.holdings import BASE_STEP, Library, read_library
from analysis.names import plural
from analysis.panels import entries_at
from analysis.published import paper_run
from analysis.runs import Entry
from analysis.statistics import Difference, difference
from analysis.tables import numbers
from analysis.tables.layout import settings_of, shown_columns
from analysis.unlike import Unlike, evaluation_differences, training_differences
from reprokit.errors import UserError
from reprokit.recipe.problems import closest, one_line
from reprokit.records.record import Origin
from reprokit.words import PARTIAL, run

PAPER = "paper"
ENDINGS: dict[str, Origin] = {"@measured": "measured", "@reported": "reported"}
HEADS = ("", "A", "B", "B - A", "p", "detectable", "method")
CURVE_HEADS = ("", "A lowest", "A highest", "B lowest", "B highest")


@dataclass(frozen=True)
class Side:
    """One of the two: the numbers of one origin of a run at one step."""

    run: str
    origin: Origin
    step: int

    def entry(self, library: Library, column: Column, step: int | None = None) -> Entry | None:
        """Its number in a column, at its step or another."""
        return library.best(self.run, self.step if step is None else step, column, self.origin)

    def steps(self, library: Library) -> list[int]:
        """Every step that it may have numbers of, the base first."""
        return [BASE_STEP, *library.steps(self.run, self.origin)]

    def columns(self, library: Library) -> list[Column]:
        """Columns that it has numbers in, at any step."""
        base = library.base(self.run) if self.step == BASE_STEP else None
        found = [*shown_columns(library, self.run, [self.origin])]
        return (
            found + [one for one in shown_columns(library, base, [self.origin]) if one not in found] if base else found
        )

    def __str__(self) -> str:
        return f"{one_line(self.run)} ({self.origin}), step {self.step}"


@dataclass(frozen=True)
class Comparison:
    """Two sides, the columns that both have a number in at their step, and those that one or both lack there."""

    first: Side
    second: Side
    pairs: dict[Column, tuple[Entry, Entry]]
    differences: dict[Column, Difference]
    lacking: dict[Column, tuple[Side, ...]]
    unlike: list[Unlike]

    @property
    def summary(self) -> str:
        """One line: how many columns went up, down, or cannot be told apart."""
        decided = [found for found in self.differences.values() if found.is_decided]
        higher = sum(found.effect > 0 for found in decided)
        unknown = sum(found.p_value is None for found in self.differences.values())
        parts = [
            f"higher in {higher}",
            f"lower in {len(decided) - higher}",
            f"not told apart in {len(self.differences) - len(decided) - unknown}",
        ]
        parts += [f"no test in {unknown}"] if unknown else []
        parts += [f"not compared in {len(self.lacking)}"] if self.lacking else []
        spoiled = len({column for one in self.unlike if one.spoils for column in one.columns})
        warning = f"; {spoiled} evaluated differently, see above" if spoiled else ""
        return f"B against A: {', '.join(parts)} of {len(self.differences) + len(self.lacking)} columns{warning}."


def compare(library: Library, first: Side, second: Side) -> Comparison:
    """Hold two sides against each other in every column that either has."""
    pairs, lacking = {}, {}
    for column in dict.fromkeys([*first.columns(library), *second.columns(library)]):
        one, other = first.entry(library, column), second.entry(library, column)
        if one and other:
            pairs[column] = (one, other)
        else:
            lacking[column] = tuple(side for side, entry in ((first, one), (second, other)) if entry is None)
    differences = {column: difference(library, *pair) for column, pair in pairs.items()}
    return Comparison(first, second, pairs, differences, lacking, evaluation_differences(library, pairs))


def sides(library: Library, names: Sequence[str], steps: Sequence[int | None]) -> tuple[Side, Side]:
    """The two sides that words name.

    Args:
        names: two of `RUN`, `RUN@reported`, `RUN@measured`, `paper`.
        steps: one for each, None for its last.

    Raises:
        UserError: an unknown run, `paper` twice or for a run that the paper does not report, a step without numbers.
    """
    others = [name for name in names if name != PAPER]
    if not others:
        raise UserError(f"{PAPER} against {PAPER}: one of the two must be a run. {_there_are(library)}")
    found = [_run_and_origin(library, name, others[0]) for name in names]
    first, second = (_side(library, *one, step) for one, step in zip(found, steps, strict=True))
    return first, second


def _run_and_origin(library: Library, name: str, other: str) -> tuple[str, Origin]:
    if name == PAPER:
        own = other if other in library.runs() else _without_ending(other)[0]
        if paper_run(own) in library.runs("reported"):
            return paper_run(own), "reported"
        raise UserError(f"{PAPER}: no number of run {own!r} is reported. {_there_are(library)}")
    if name in library.runs():
        return name, "measured" if name in library.runs("measured") else "reported"
    run, origin = _without_ending(name)
    if origin and run in library.runs(origin):
        return run, origin
    guess = closest(name, library.runs())
    hint = f" Did you mean {guess}?" if guess else ""
    raise UserError(f"no run {name!r}.{hint} {_there_are(library)}")


def _without_ending(name: str) -> tuple[str, Origin | None]:
    for ending, origin in ENDINGS.items():
        if name.endswith(ending):
            return name.removesuffix(ending), origin
    return name, None


def _there_are(library: Library) -> str:
    measured, reported = (", ".join(map(one_line, library.runs(origin))) or "none" for origin in ENDINGS.values())
    return f"There are:\n  measured: {measured}\n  reported: {reported}"


def _side(library: Library, run: str, origin: Origin, step: int | None) -> Side:
    steps = library.steps(run, origin)
    if step is None:
        return Side(run, origin, steps[-1] if steps else BASE_STEP)
    side = Side(run, origin, step)
    if not any(side.entry(library, column) for column in side.columns(library)):
        there = ", ".join(map(str, [BASE_STEP, *steps]))
        raise UserError(f"step={step}: {run} has no {origin} number there; it may have some at {there}")
    return side


def lines_of(library: Library, found: Comparison) -> list[str]:
    """What is printed of a comparison."""
    first, second = found.first, found.second
    lines = [
        f"{letter}: {side}. {one_line(settings_of(library, side.run))}"
        for letter, side in (("A", first), ("B", second))
    ]
    if found.pairs:
        tests = sum(one.p_value is not None for one in found.differences.values())
        lines += [
            "",
            f"95 % intervals; p-values are two-sided and not corrected for {tests} tests; detectable: with 80 % power",
        ]
        lines += _aligned([HEADS, *(_row(column, found) for column in found.pairs)])
        lines += _curve_lines(library, found)
    lines += _lacking_lines(found)
    lines += ["", *_training_lines(library, found), *_evaluation_lines(found.unlike), "", found.summary]
    return lines


def _lacking_lines(found: Comparison) -> list[str]:
    lines = []
    for letter, side in (("A", found.first), ("B", found.second)):
        titles = [
            one_line(column.title) for column, lacks in found.lacking.items() if any(one is side for one in lacks)
        ]
        lines += [f"Not compared, no number of {letter}: {', '.join(titles)}"] if titles else []
    return ["", *lines] if lines else []


def _row(column: Column, found: Comparison) -> tuple[str, ...]:
    one, other = found.pairs[column]
    result, unit = found.differences[column], one.record.unit
    p_value = "" if result.p_value is None else f"{result.p_value:.3f}" if result.p_value >= 0.001 else "<0.001"
    detectable = "" if result.detectable is None else numbers.fixed(result.detectable, numbers.decimals(unit))
    how = f"{result.method}, {result.items} problems" if result.items else result.method
    change = numbers.signed(result, unit)
    return one_line(column.title), numbers.score(one), numbers.score(other), change, p_value, detectable, how


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _curve_lines(library: Library, found: Comparison) -> list[str]:
    """Lowest and highest value of both over their steps, where one of them has several."""
    rows = []
    for column in found.pairs:
        ends = [_extrema(library, side, column) for side in (found.first, found.second)]
        if any(low != high for low, high in ends):
            rows.append((one_line(column.title), *ends[0], *ends[1]))
    return ["", "Over all steps (value at step):", *_aligned([CURVE_HEADS, *rows])] if rows else []


def _extrema(library: Library, side: Side, column: Column) -> tuple[str, str]:
    steps = side.steps(library)
    found = [(step, entry) for step in steps for entry in entries_at(library, side.run, step, column, side.origin)[:1]]
    ends = [pick(found, key=lambda at: at[1].record.value) for pick in (min, max)]
    low, high = (f"{_value(entry)} at {step}" for step, entry in ends)
    return low, high


def _value(entry: Entry) -> str:
    record = entry.record
    places = numbers.decimals(record.unit)
    return numbers.as_reported(record.value) if record.origin == "reported" else numbers.fixed(record.value, places)


def _training_lines(library: Library, found: Comparison) -> list[str]:
    unlike = training_differences(library, found.first.run, found.second.run)
    words = [f"{what} {one_line(one)} / {one_line(other)}" for what, one, other in unlike]
    words += [f"step {found.first.step} / {found.second.step}"] if found.first.step != found.second.step else []
    return [f"Runs differ in (A / B): {'; '.join(words) or 'nothing that records say'}"]


def _evaluation_lines(unlike: Sequence[Unlike]) -> list[str]:
    groups: Mapping[str, list[Unlike]] = {
        "Evaluated differently, so that their difference is not only the models' (A / B):": [
            one for one in unlike if one.spoils
        ],
        "Evaluated by other software or machines (A / B):": [one for one in unlike if not one.spoils],
    }
    return [
        line
        for heading, ones in groups.items()
        if ones
        for line in (heading, *(f"  {one_line(_unlike_words(one))}" for one in ones))
    ]


def _unlike_words(one: Unlike) -> str:
    return f"{one.what} {one.first} / {one.second} ({', '.join(column.title for column in one.columns)})"


def run_compare(words: Sequence[str]) -> int:
    """Do what the words say; returns the exit code.

    Raises:
        UserError: unknown words, runs or steps, no results, or damaged ones.
    """
    given = {"results": "results", "step": ""}
    names = []
    for word in words:
        key, equals, value = word.partition("=")
        if not (equals and key in given):
            names.append(word)
        elif value:
            given[key] = value
    if len(names) != 2:
        raise UserError(
            f"{plural(len(names), 'name')} given ({', '.join(names) or 'none'}), two are needed.\n\n{__doc__}"
        )
    library = read_library(Path(given["results"]))
    found = compare(library, *sides(library, names, _steps(given["step"])))
    print("\n".join(lines_of(library, found)))
    return PARTIAL if found.lacking or not found.pairs else 0


def _steps(value: str) -> list[int | None]:
    """`` -> the last of both, `640` -> that of both, `320,640` -> of A and B."""
    parts = [part.strip() for part in value.split(",")] if value else []
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() for part in parts):
        raise UserError(
            f"step={value}: give one step, or two separated by a comma, for example step=640 or step=320,640"
        )
    steps: list[int | None] = [int(part) for part in parts] or [None]
    return steps * 2 if len(steps) == 1 else steps


def main(words: Sequence[str]) -> int:
    """Run the command; returns its exit code."""
    return run(lambda: run_compare(words))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
