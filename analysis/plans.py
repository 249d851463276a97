"""What each figure of the paper is made of, before any drawing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from analysis.blocks import Block, change_blocks, last_step, level_blocks, panel_blocks
from analysis.completeness import Lack, run_matrix
from analysis.exhibits import PICTURES, Picture, shared_words, short_names
from analysis.holdings import BASE_STEP, Library
from analysis.panels import (
    LENGTH,
    SCORE,
    TRUNCATED,
    Panel,
    Point,
    Series,
    Shown,
    build_panels,
    entries_at,
    range_panels,
)
from analysis.published import measured_run
from analysis.unlike import mixed
from reprokit.records.paper import FIGURES, base_of

_SUBTITLES = {
    "scores": "Score against step",
    "lengths": "Mean response length against step",
    "changes": "Score at the last checkpoint minus score of the base",
    "levels": "Values at the last checkpoint and of the base",
}
_STRIPS = {"scores": ", mean response length below", "lengths": ", responses cut at the token limit below"}
_BASES_ALONE = "Values of the base models; of their checkpoints none is known"


@dataclass
class Plan:
    """One figure before it is drawn: panels with strips of secondary weight below them, or blocks of single steps.

    `figure` is the number in the paper, or the name of a figure of the one run `run`; `runs` are all that it should
    show; `unknown` names columns without any value; `missing` has the cells without a result, by run. `unlike_bases`
    names measured bases that were evaluated in another way than their checkpoints, and are not drawn. `mixed` says
    of which values not all steps were evaluated alike, and in what. `details` names runs whose details were used.
    """

    figure: str
    run: str
    heading: str
    subtitle: str
    runs: list[Shown]
    panels: list[Panel] = field(default_factory=list)
    strips: list[Panel] = field(default_factory=list)
    blocks: list[Block] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    missing: dict[str, list[Lack]] = field(default_factory=dict)
    unlike_bases: list[str] = field(default_factory=list)
    mixed: list[str] = field(default_factory=list)
    note: str = ""
    details: list[str] = field(default_factory=list)

    @property
    def series(self) -> list[Series]:
        """Everything that is drawn."""
        of_panels = [series for panel in self.panels + self.strips for series in panel.series]
        return [series for block in self.blocks for series in block.series] or of_panels

    @property
    def points(self) -> list[Point]:
        """Every value that is drawn."""
        return [point for series in self.series for point in series.points + series.ranges]

    @property
    def titled(self) -> list[tuple[str, Series]]:
        """Series of secondary weight left out, each with what its panel or row is called."""
        if self.panels:
            return [(panel.title, series) for panel in self.panels for series in panel.series]
        rows = [row for block in self.blocks for row in block.rows]
        return [(row.group if series.label else row.label, series) for row in rows for series in row.series]

    @property
    def name(self) -> str:
        """Path of its files in the figures folder, without extension."""
        return f"{self.run}/{self.figure}" if self.run else f"figure_{self.figure}"


def paper_plan(library: Library, number: str) -> Plan:
    """Figure `number` of the paper from all that is known, which may be nothing."""
    picture, exhibit = PICTURES[number], FIGURES[number]
    names = short_names(exhibit.runs)
    shown = [Shown(run, names[run], place, measured_run(library, run)) for place, run in enumerate(exhibit.runs)]
    plan = Plan(number, "", picture.heading, "", shown, note=", ".join(filter(None, [exhibit.note, picture.part])))
    if picture.form == "changes":
        alone = [replace(each, label="") for each in shown]
        plan.blocks = change_blocks(library, alone, picture.columns)
        runs = {entry.record.run for point in plan.points for entry in point.entries}
        plan.details = sorted(runs & library.details.keys())
    elif picture.form == "levels":
        plan.blocks = level_blocks(library, shown, picture.columns)
    else:
        _add_panels(plan, library, picture)
    plan.unknown = _unknown(plan, picture)
    plan.missing = _missing(library, shown, picture)
    plan.unlike_bases = _unlike_bases(library, shown, picture)
    plan.mixed = mixed_curves(library, plan)
    plan.subtitle = f"{_subtitle(plan, picture)}. {shared_words(exhibit.runs)}"
    return plan


def _subtitle(plan: Plan, picture: Picture) -> str:
    if plan.points and {point.step for point in plan.points} == {BASE_STEP}:
        return _BASES_ALONE
    return _SUBTITLES[picture.form] + (_STRIPS[picture.form] if plan.strips else "")


def _add_panels(plan: Plan, library: Library, picture: Picture) -> None:
    if picture.form == "scores":
        plan.panels = build_panels(library, plan.runs, picture.columns, SCORE)
        plan.strips = build_panels(library, plan.runs, picture.columns, LENGTH) if picture.with_lengths else []
    else:
        plan.panels = build_panels(library, plan.runs, picture.columns, LENGTH)
        plan.strips = build_panels(library, plan.runs, picture.columns, TRUNCATED)
    if picture.form == "lengths" or picture.with_lengths:
        plan.panels += range_panels(library, plan.runs)
    fold_single_step(plan)


def fold_single_step(plan: Plan) -> None:
    """Values of a single step are no course: they go into rows."""
    if len({point.step for point in plan.points}) == 1:
        plan.blocks = panel_blocks(plan.panels + plan.strips)


def _unknown(plan: Plan, picture: Picture) -> list[str]:
    known = {row.label for block in plan.blocks for row in block.rows if row.series}
    known |= {block.kind for block in plan.blocks} | {panel.title for panel in plan.panels}
    names = [column.benchmark if picture.form == "lengths" else column.title for column in picture.columns]
    return [name for name in names if name not in known]


def mixed_curves(library: Library, plan: Plan) -> list[str]:
    """For example `Qwen3-14B MATH500 (settings.temperature)`."""
    found: dict[str, list[str]] = {}
    for title, series in plan.titled:
        entries = [entry for point in series.points for entry in point.entries]
        if series.origin == "measured" and (what := ", ".join(mixed(library, entries))):
            found.setdefault(what, []).append(" ".join(filter(None, [series.label, title])))
    return [f"{', '.join(names)} ({what})" for what, names in found.items()]


def _unlike_bases(library: Library, shown: Sequence[Shown], picture: Picture) -> list[str]:
    """Columns of measured bases that are left out, since those of the checkpoints were evaluated in another way."""
    found: dict[str, list[str]] = {}
    for each, column in product(shown, picture.columns):
        run = each.name("measured")
        bases = library.find(run, BASE_STEP, column, "measured")
        if bases and not entries_at(library, run, BASE_STEP, column, "measured"):
            titles = found.setdefault(bases[0].record.model, [])
            titles += [column.title] if column.title not in titles else []
    return [f"{model} {', '.join(titles)}" for model, titles in found.items()]


def _missing(library: Library, shown: Sequence[Shown], picture: Picture) -> dict[str, list[Lack]]:
    """Cells of the figure that should have a result and have none."""
    benchmarks = {column.benchmark for column in picture.columns}
    missing = {}
    runs = [each.name("measured") for each in shown]
    for run in dict.fromkeys([*runs, *(base_of(each.run) or each.run for each in shown)]):
        steps = {BASE_STEP, last_step(library, run, "measured")}
        missing[run] = [
            cell
            for cell in run_matrix(library, run).lacking
            if cell.benchmark in benchmarks
            if picture.form in ("scores", "lengths") or cell.step in steps
        ]
    return {run: cells for run, cells in missing.items() if cells}
