"""What the figures of a run that no figure of the paper shows are made of, before any drawing."""

from __future__ import annotations

from analysis.behaviour import Share, behaviour
from analysis.columns import Column, column_of
from analysis.completeness import run_matrix
from analysis.holdings import BASE_STEP, Library
from analysis.panels import LENGTH, SCORE, TRUNCATED, Panel, Point, Series, Shown, build_panels
from analysis.plans import Plan, fold_single_step, mixed_curves
from analysis.published import measured_run
from reprokit.records.paper import FIGURES, base_of

_STRIPS = {"response_length": ", cut at the token limit below", "behaviour": ", thinking never closed below"}


def own_runs(library: Library) -> list[str]:
    """Measured runs that no figure of the paper shows, neither as a run nor as the base of one."""
    of_paper = {run for exhibit in FIGURES.values() for run in exhibit.runs}
    shown = of_paper | {base_of(run) or run for run in of_paper} | {measured_run(library, run) for run in of_paper}
    return [run for run in library.runs("measured") if run not in shown]


def own_plans(library: Library, run: str) -> list[Plan]:
    """The figures that the records of this run allow: scores, and lengths and behaviour where they are known."""
    shown, columns, settings = [Shown(run)], headline_columns(library, run), _settings(library, run)
    scores = Plan("score", run, "Score", settings, shown, build_panels(library, shown, columns, SCORE))
    lengths = Plan("response_length", run, "Response length", settings, shown)
    lengths.panels = build_panels(library, shown, columns, LENGTH)
    lengths.strips = build_panels(library, shown, columns, TRUNCATED)
    plans = [scores, lengths, *_behaviour_plans(library, run, settings)]
    missing = run_matrix(library, run).lacking
    for plan in plans:
        plan.missing = {run: missing} if missing else {}
        plan.mixed = mixed_curves(library, plan)
        fold_single_step(plan)
        steps = sorted({point.step for point in plan.points})
        when = f"at step {steps[0]}" if len(steps) == 1 else "against step"
        plan.subtitle = f"{plan.heading} {when}{_STRIPS.get(plan.figure, '')}. {plan.subtitle}"
    return [plan for plan in plans if plan.panels]


def headline_columns(library: Library, run: str) -> list[Column]:
    """Columns that a run has a headline in, in the paper's order."""
    found = {column_of(entry.record) for entry in library.entries(run) if entry.record.headline}
    return sorted((column for column in found if column is not None), key=lambda column: column.place)


def _settings(library: Library, run: str) -> str:
    record = library.settings(run)
    assert record is not None
    known = [
        (record.dataset, "{}"),
        (record.learning_rate, "learning rate {:g}"),
        (record.epochs, "{:g} epoch" if record.epochs == 1 else "{:g} epochs"),
        (record.batch_size, "batch {}"),
        (record.schedule, "{}"),
    ]
    settings = [words.format(value) for value, words in known if value is not None]
    is_base = all(entry.record.step == BASE_STEP for entry in library.entries(run))
    return ", ".join([record.model, *settings, *(["untrained"] if is_base else [])])


def _behaviour_plans(library: Library, run: str, settings: str) -> list[Plan]:
    """How many responses show each behaviour; thinking that never ends below."""
    table = behaviour(library, run)
    plan = Plan("behaviour", run, "Responses with each behaviour", settings, [Shown(run)])
    plan.details = sorted({row.run for row in table.rows})
    steps = set(run_matrix(library, run).steps)
    for benchmark in table.benchmarks:
        rows = table.of(benchmark)
        grid = sorted({row.step for row in rows} | steps)
        sizes = [f"{responses} responses" for responses in dict.fromkeys(row.responses for row in rows)]
        series = [
            Series(
                "measured",
                grid,
                name.replace("_", " "),
                place,
                [_share(row.step, row.rates[name].share) for row in rows],
            )
            for place, name in enumerate(table.detectors)
        ]
        plan.panels.append(Panel(benchmark, benchmark, "responses", "percent", sizes, series=series))
        unfinished = [_share(row.step, row.unfinished_thinking) for row in rows]
        below = Series("measured", grid, place=len(table.detectors), points=unfinished)
        plan.strips.append(Panel(benchmark, benchmark, "never closed", "percent", series=[below]))
    return [plan]


def _share(step: int, share: Share) -> Point:
    return Point(step, 100 * share.value, 100 * share.low, 100 * share.high, None)
