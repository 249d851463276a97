"""Figures of every run found: score and response length against step.

    python -m analysis.figures [results=DIR] [out=DIR]

Reads `results/*.json` and writes `figures/<run>/score.{pdf,png}`, `figures/<run>/response_length.{pdf,png}` and
`figures/index.json`, which names the current figures and what each was made from. The same records give the same
bytes. Files of runs that are no longer found stay where they are.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.drawing import Text, draw_dots, draw_grid, grid_rows, render
from analysis.panels import (
    Panel,
    build_panels,
    has_gaps,
    missing_from,
    notes_on,
    response_length,
    score,
    truncated,
    used_entries,
)
from analysis.runs import Entry, ResultFile, Run, find_runs, read_folder
from analysis.style import figure_style
from reprokit.errors import UserError
from reprokit.records.files import write_bytes, write_json

PROJECT = Path(__file__).resolve().parent.parent
FORMATS = ("pdf", "png")
MAX_NOTES = 10


@dataclass(frozen=True)
class Plan:
    """One figure of one run before it is drawn; strips are panels of secondary weight."""

    name: str
    heading: str
    panels: list[Panel]
    strips: list[Panel]
    entries: list[Entry]


def draw_all(results: Path = PROJECT / "results", out: Path = PROJECT / "figures") -> list[Path]:
    """Draw every run found in `results` into `out`; returns the files written, the index last.

    Raises:
        UserError: no result file, or damaged ones (all are named, nothing is drawn), or a run name that is no
            folder name.
    """
    files = read_folder(results)
    runs = find_runs(files)
    for run in runs:
        if Path(run.name).name != run.name or run.name in {".", ".."}:
            raise UserError(f"run name {run.name!r} in {run.entries[0].file} cannot name a folder: rename the run")
    written: list[Path] = []
    index: list[dict[str, Any]] = []
    with figure_style():
        for run in runs:
            for plan in plan_figures(run):
                paths = _draw(run, plan, out / run.name)
                written += paths
                index.append(_index_entry(run, plan, [str(path.relative_to(out)) for path in paths], files))
    empty = [file.name for file in files if not file.results.records]
    write_json(out / "index.json", {"figures": index, "files_without_records": empty})
    return [*written, out / "index.json"]


def plan_figures(run: Run) -> list[Plan]:
    """The figures that the records of this run allow: scores, and lengths where some are known."""
    scores = Plan("score", "Score", build_panels(run, score), [], used_entries(run, score))
    lengths = Plan(
        "response_length",
        "Response length",
        build_panels(run, response_length),
        build_panels(run, truncated),
        used_entries(run, response_length),
    )
    return [plan for plan in (scores, lengths) if plan.panels]


def _draw(run: Run, plan: Plan, folder: Path) -> list[Path]:
    steps = {entry.record.step for entry in plan.entries}
    is_single = len(steps) == 1
    when = f"at step {min(steps)}" if is_single else "against step"
    text = Text(run.name, f"{plan.heading} {when}. {_settings(run)}", _footer(run, plan))
    everything = plan.panels + plan.strips
    figure = draw_dots(text, everything) if is_single else draw_grid(text, grid_rows(plan.panels, plan.strips))
    paths = [folder / f"{plan.name}.{extension}" for extension in FORMATS]
    for path, extension in zip(paths, FORMATS, strict=True):
        write_bytes(path, render(figure, extension))
    return paths


def _settings(run: Run) -> str:
    # The base's records are of the run too, but say nothing of its training.
    record = next((record for record in run.own_records if record.dataset), run.own_records[0])
    known = [
        (record.dataset, "{}"),
        (record.learning_rate, "learning rate {:g}"),
        (record.epochs, "{:g} epoch" if record.epochs == 1 else "{:g} epochs"),
        (record.batch_size, "batch {}"),
        (record.schedule, "{}"),
    ]
    settings = [words.format(value) for value, words in known if value is not None]
    return ", ".join([record.model, *(settings or ["untrained"])])


def _footer(run: Run, plan: Plan) -> list[str]:
    notes = notes_on(plan.panels)
    left_out = len(notes) - MAX_NOTES
    lines = [f"Note: {note}." for note in notes[:MAX_NOTES]]
    lines += [f"{left_out} more notes are in the result files."] if left_out > 0 else []
    missing = missing_from(run)
    if len({entry.record.step for entry in plan.entries}) > 1 and has_gaps(plan.panels):
        lines.append("No line where a value in between is not known.")
    lines += [f"No result yet: {', '.join(missing)}."] if missing else []
    sources = dict.fromkeys(entry.record.source for entry in plan.entries if entry.record.source)
    lines += [f"Reported values from {'; '.join(sources)}."] if sources else []
    return lines


def _index_entry(run: Run, plan: Plan, paths: list[str], files: list[ResultFile]) -> dict[str, Any]:
    used = [entry.file for entry in plan.entries]
    sources = [
        {"file": file.name, "sha256": file.sha256, "records": used.count(file.name)}
        for file in files
        if file.name in used
    ]
    values = sum(len(panel.points) for panel in plan.panels + plan.strips)
    return {"run": run.name, "figure": plan.name, "files": paths, "values_drawn": values, "made_from": sources}


def main(arguments: list[str]) -> int:
    """Command line; returns the exit code."""
    options = {"results": str(PROJECT / "results"), "out": str(PROJECT / "figures")}
    try:
        for argument in arguments:
            key, _, value = argument.partition("=")
            if key not in options or not value:
                raise UserError(f"{argument!r} is not understood; valid: results=DIR out=DIR")
            options[key] = value
        out = Path(options["out"])
        print(f"drawing what is in {options['results']}", flush=True)
        written = draw_all(Path(options["results"]), out)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{len(written) - 1} files (PDF and PNG) in {out}, listed in {out / 'index.json'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
