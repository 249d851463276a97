"""The words of a figure: footer on the picture, caption beside it, and why there is no picture."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from analysis.holdings import BASE_STEP
from analysis.panels import ORIGINS, cells_in_words, has_gaps, notes_on
from analysis.plans import Plan
from analysis.published import paper_run
from analysis.style import FILLS
from reprokit.records.record import Origin, Record

MAX_NOTES = 10
INFERRED = "The original's axes are not known to us; its form is inferred from descriptions."


def footer(plan: Plan) -> list[str]:
    """Lines below the panels: doubts, gaps, what is missing, where reported values stand."""
    notes = notes_on(plan.titled)
    left_out = len(notes) - MAX_NOTES
    lines = [f"Note: {note}." for note in notes[:MAX_NOTES]]
    lines += [f"{left_out} more notes are in the result files."] if left_out > 0 else []
    if not plan.blocks and has_gaps(plan.panels):
        lines.append("No line where a value in between is not known.")
    lines += _unknown(plan) + _missing(plan)
    return [*lines, *_sources(plan, "measured"), *_sources(plan, "reported")]


def caption(plan: Plan) -> str:
    """One paragraph of plain text: what is shown, which runs are measured or reported, what is not known."""
    if plan.run:
        parts = [f"{plan.run}. {plan.subtitle}."]
    else:
        parts = [f"Figure {plan.figure}. {plan.heading}. {plan.subtitle}.", INFERRED]
        parts += [f"About it: {plan.note}."] if plan.note else []
    for origin, found in _known_steps(plan).items():
        words = "; ".join(f"{names} ({_in_words(steps)})" if names else _in_words(steps) for names, steps in found)
        parts += [f"{FILLS[origin].label.capitalize()}: {words}."] if found else []
    parts += _sources(plan, "measured") + _unknown(plan) + _missing(plan)
    return " ".join([*parts, *(f"Note: {note}." for note in notes_on(plan.titled))])


def reason(plan: Plan, python: str = "python") -> str:
    """Why a figure of the paper has no picture, and the command that makes its data.

    Args:
        python: as it is typed; its path on this machine only for the console.
    """
    return (
        "No value of this figure is known, neither measured nor reported. "
        f"This makes its data: {python} -m reprokit.launch figure={plan.figure}"
    )


def _unknown(plan: Plan) -> list[str]:
    """Runs without any checkpoint, or without a measured one beside others that have; columns without any value."""
    records = [entry.record for point in plan.points for entry in point.entries]
    known = {(record.origin, paper_run(record.run)) for record in records if record.step > BASE_STEP}
    has_measured = any(origin == "measured" for origin, _ in known)
    runs: dict[str, list[str]] = defaultdict(list)
    for shown in plan.runs if not plan.run else ():
        if not any((origin, shown.run) in known for origin in ORIGINS):
            runs["No checkpoint known of"].append(shown.label or shown.run)
        elif has_measured and ("measured", shown.run) not in known:
            runs["No checkpoint measured of"].append(shown.label or shown.run)
    lines = [f"{what}: {'; '.join(names)}." for what, names in sorted(runs.items())]
    return lines + ([f"No value known of: {', '.join(plan.unknown)}."] if plan.unknown else [])


def _sources(plan: Plan, origin: Origin) -> list[str]:
    """Where values of an origin are from: a place in the paper, another harness's file, published checkpoints."""
    records = (entry.record for point in plan.points for entry in point.entries)
    sources = dict.fromkeys(_source(record) for record in records if record.origin == origin)
    known = list(filter(None, sources))
    return [f"{origin.capitalize()} values from {'; '.join(known)}."] if known else []


def _source(record: Record) -> str | None:
    """Nothing to say of what this kit measured of its own training."""
    is_published = record.checkpoints == "published" and record.step > BASE_STEP
    return f"checkpoints that the authors published ({record.run})" if is_published else record.source


def _missing(plan: Plan) -> list[str]:
    """Cells without a result, bases that are not drawn, and values that cannot be compared with their neighbours."""
    unlike = "Not drawn, since measured in another way than the checkpoints: base values of"
    lines = [f"{unlike} {'; '.join(plan.unlike_bases)}."] if plan.unlike_bases else []
    lines += [f"Not all steps were evaluated alike: {'; '.join(plan.mixed)}."] if plan.mixed else []
    for run, cells in plan.missing.items():
        where = "" if run == plan.run else f" of {run}"
        lines.append(f"No result yet{where}: {', '.join(cells_in_words(cells))}.")
    return lines


def _known_steps(plan: Plan) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Per origin the steps that the figure has values of, with the names of the runs that have just those."""
    known: dict[str, list[tuple[str, tuple[int, ...]]]] = {}
    for origin in ORIGINS:
        of_label: dict[str, set[int]] = defaultdict(set)
        for series in plan.series:
            if series.origin == origin:
                of_label[series.label].update(point.step for point in series.points + series.ranges)
        names: dict[tuple[int, ...], list[str]] = defaultdict(list)
        for label, steps in of_label.items():
            names[tuple(sorted(steps))].append(label)
        known[origin] = [("; ".join(filter(None, labels)), steps) for steps, labels in names.items() if steps]
    return known


def _in_words(steps: Iterable[int]) -> str:
    """For example `base, steps 10, 20`."""
    ordered = sorted(set(steps))
    later = [str(step) for step in ordered if step > BASE_STEP]
    words = ["base"] if BASE_STEP in ordered else []
    return ", ".join([*words, *([f"step{'s' * (len(later) > 1)} {', '.join(later)}"] if later else [])])
