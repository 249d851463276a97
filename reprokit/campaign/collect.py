"""Result files of a run -> the records that analysis reads."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from reprokit.campaign.cells import all_cells, missing_cells
from reprokit.errors import UserError
from reprokit.recipe.derived import all_steps
from reprokit.recipe.schema import Recipe, Source
from reprokit.records.files import read_json
from reprokit.records.record import MissingCell, Record, Results, read_results
from reprokit.records.result import Cell, CellResult, MetricResult, read_result
from reprokit.records.run_directory import RunDirectory


def collect(run: RunDirectory, recipe: Recipe) -> Results:
    """Records of every finished cell; cells that are missing are listed, never left out in silence.

    Steps and benchmarks that the recipe does not ask for now, and has results of, are there too. A damaged result file
    counts as missing.
    """
    missing = missing_cells(run, recipe)
    provenance: dict[str, dict[str, Any]] = {}
    records = []
    for cell in sorted([*all_cells(recipe), *_others(run, recipe)], key=lambda cell: (cell.step, cell.benchmark)):
        result = None if cell in missing else read_result(run.result(cell.step, cell.benchmark))
        if result is not None:
            key = _key_of(provenance, _made_by(result))
            records += [_record(recipe, result, metric, key) for metric in result.metrics if metric.value is not None]
    if run.provenance.exists():
        provenance["training"] = read_json(run.provenance, dict[str, Any])
    if recipe.source is Source.published:
        commits = {made.revision for made in map(run.manifest, all_steps(recipe)[1:]) if made is not None}
        revision = next(filter(None, commits), recipe.published.revision)
        provenance["published"] = {"hub_id": recipe.published.hub_id, "revision": revision}
    return Results(
        run=recipe.name,
        records=records,
        missing=[MissingCell(step=cell.step, benchmark=cell.benchmark) for cell in missing],
        provenance=provenance,
    )


def _others(run: RunDirectory, recipe: Recipe) -> list[Cell]:
    """Cells with a result, of steps or benchmarks that the recipe does not ask for now."""
    asked = set(all_cells(recipe))
    paths = ((step, path) for step in all_steps(recipe) for path in sorted(run.evaluated(step).glob("*/result.json")))
    cells = (Cell(step, path.parent.name) for step, path in paths)
    return [cell for cell in cells if cell not in asked]


def keep_fuller(path: Path, cells: Iterable[Cell]) -> None:
    """Keep a results file that has more than what would replace it.

    Args:
        cells: those of which there are results, or will be.

    Raises:
        UserError: the file has others.
    """
    if not path.exists():
        return
    there = {Cell(record.step, record.benchmark) for record in read_results(path).records}
    if lost := sorted(there - set(cells)):
        shown = ", ".join(f"step {cell.step} on {cell.benchmark}" for cell in lost[:5]) + ", ..." * (len(lost) > 5)
        raise UserError(
            f"{path} has results of {len(lost)} cells that the run folder has not ({shown}): the file is left as it "
            "is. Launch for those too (leave out figure=, table=, evaluation.steps= and what takes benchmarks away), "
            "give this run another name (name=...), or move the file away."
        )


def collectable(run: RunDirectory, recipe: Recipe) -> list[Cell]:
    """Cells of a run that results are of, once nothing that the recipe asks for is missing."""
    return [*all_cells(recipe), *_others(run, recipe)]


def _key_of(known: dict[str, dict[str, Any]], made_by: dict[str, Any]) -> str:
    """Key under which `made_by` stands in `known`; equal provenance is stored once."""
    for key, value in known.items():
        if value == made_by:
            return key
    key = f"evaluation_{len(known) + 1}"
    known[key] = made_by
    return key


def _made_by(result: CellResult) -> dict[str, Any]:
    """What made the numbers of a cell: the same for cells that one job made alike."""
    parts = {"settings": result.settings, "data": result.data, "judges": result.judges, "scorer": result.scorer}
    return {"evaluation": result.provenance, "scored_with": result.scored_with, **parts}


def _record(recipe: Recipe, result: CellResult, metric: MetricResult, provenance: str) -> Record:
    training = recipe.training
    base = result.step == 0
    assert metric.value is not None
    return Record(
        run=recipe.name,
        model=recipe.model.name,
        dataset=None if base else recipe.data.name,
        learning_rate=None if base else training.learning_rate,
        epochs=None if base else training.epochs,
        batch_size=None if base else training.global_batch_size,
        schedule=None if base else training.schedule.value,
        step=result.step,
        benchmark=result.benchmark,
        metric=metric.metric,
        protocol=metric.protocol,
        headline=metric.headline,
        value=metric.value,
        unit=metric.unit,
        items=metric.items,
        samples_per_item=metric.samples_per_item,
        interval_low=metric.interval_low,
        interval_high=metric.interval_high,
        mean_response_tokens=result.mean_response_tokens,
        truncated_fraction=result.truncated_fraction,
        no_answer_fraction=result.no_answer_fraction[metric.protocol],
        origin="measured",
        checkpoints=recipe.source.value,
        provenance=provenance,
    )
