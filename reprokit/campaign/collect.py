"""Result files of a run -> the records that analysis reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reprokit.campaign.cells import all_cells, missing_cells
from reprokit.campaign.damage import cells_without_samples, damaged_files
from reprokit.errors import UserError
from reprokit.recipe.derived import all_steps
from reprokit.recipe.schema import Recipe, Source
from reprokit.records.details import details_path
from reprokit.records.files import sha256_of_file, write_bytes, write_json
from reprokit.records.provenance import read_provenance
from reprokit.records.record import MissingCell, Record, Results, read_results, write_results
from reprokit.records.result import Cell, CellResult, MetricResult, read_result
from reprokit.records.run_directory import RunDirectory
from reprokit.records.spent import spent_on_training


def collect(run: RunDirectory, recipe: Recipe) -> Results:
    """Records of every finished cell; cells that are missing are listed, never left out in silence.

    Steps and benchmarks that the recipe does not ask for now, and has results of, are there too. A damaged result file
    counts as missing, and so does one without a single number (no verdict of its judges was usable).
    """
    missing = missing_cells(run, recipe)
    provenance: dict[str, dict[str, Any]] = {}
    asked = set(all_cells(recipe))
    records, empty = [], []
    for cell in sorted([*all_cells(recipe), *_others(run, recipe)], key=lambda cell: (cell.step, cell.benchmark)):
        result = None if cell in missing else read_result(run.result(cell.step, cell.benchmark))
        if result is not None and result.cell == cell:
            key = _key_of(provenance, _made_by(result))
            found = [_record(recipe, result, metric, key) for metric in result.metrics if metric.value is not None]
            records += found
            empty += [cell] if not found and cell in asked else []
    if (made := read_provenance(run.provenance)) is not None:
        provenance["training"] = made
        if (spent := spent_on_training(run)).steps:
            provenance["training"]["spent"] = msgspec.to_builtins(spent)
    if recipe.source is Source.published:
        commits = {made.revision for made in map(run.manifest, all_steps(recipe)[1:]) if made is not None}
        revision = next(filter(None, commits), recipe.published.revision)
        provenance["published"] = {"hub_id": recipe.published.hub_id, "revision": revision}
    return Results(
        run=recipe.name,
        records=records,
        missing=[MissingCell(step=cell.step, benchmark=cell.benchmark) for cell in [*missing, *empty]],
        provenance=provenance,
    )


@dataclass(frozen=True)
class Collected:
    """What was collected of one run.

    `damaged` says of each damaged file what is wrong, `replaced` is where the earlier results lie now if they had cells
    that these have not. `without_samples` are cells whose numbers stand and whose samples are gone.
    """

    results: Results
    damaged: list[str]
    replaced: Path | None
    without_samples: list[Cell]

    @property
    def is_partial(self) -> bool:
        """Whether anything is missing or damaged."""
        return bool(self.results.missing or self.damaged)

    @property
    def notes(self) -> list[str]:
        """What a person has to know beside the number of records."""
        found = [f"damaged: {flaw}" for flaw in self.damaged]
        if self.replaced is not None:
            found.append(f"the earlier results have cells that are gone from the run folder: kept as {self.replaced}")
        if self.without_samples:
            shown = ", ".join(f"step {cell.step} on {cell.benchmark}" for cell in self.without_samples[:5])
            shown += ", ..." * (len(self.without_samples) > 5)
            found.append(f"the samples are gone of {shown}: the numbers stand, and cannot be scored anew")
        return found


def collect_into(folder: Path, run: RunDirectory, recipe: Recipe) -> Collected:
    """Write the results and the details of a run into a results folder.

    The details come first: when this is stopped in between, the results are not those of the run folder, and the next
    launch collects again.

    Raises:
        UserError: as `keep_fuller`.
    """
    gathered = collect(run, recipe)
    path = folder / f"{recipe.name}.json"
    keep_fuller(path, collectable(run, recipe))
    damaged = damaged_files(run)
    replaced = _set_aside(folder, gathered)
    damaged += _write_details(folder, run, recipe, sorted(cells_of(gathered)))
    write_results(path, gathered)
    return Collected(gathered, damaged, replaced, cells_without_samples(run))


def cells_of(results: Results) -> set[Cell]:
    """The cells that a results file has records of."""
    return {Cell(record.step, record.benchmark) for record in results.records}


def _write_details(folder: Path, run: RunDirectory, recipe: Recipe, cells: list[Cell]) -> list[str]:
    """Write the details of these cells; returns what keeps them from being made, and then leaves none behind."""
    from reprokit.evaluation.details import gather

    path = details_path(folder, recipe.name)
    try:
        write_json(path, gather(run, recipe, cells))
    except UserError as error:
        path.unlink(missing_ok=True)  # those of earlier samples
        return [f"{error} There are no details of single items then."]
    return []


def _set_aside(folder: Path, gathered: Results) -> Path | None:
    """Keep a copy of a results file with cells that these results have not, or of another harness; returns where."""
    path = folder / f"{gathered.run}.json"
    earlier = read_results(path) if path.exists() else None
    if earlier is None or (cells_of(earlier) <= cells_of(gathered) and not is_imported(earlier)):
        return None
    kept, name = folder / "replaced", f"{gathered.run}-{sha256_of_file(path)[:12]}"
    details = details_path(folder, gathered.run)
    for old, new in ((path, kept / f"{name}.json"), (details, details_path(kept, name))):
        if old.exists() and not new.exists():  # of a collection that was stopped, the details are not the earlier ones
            write_bytes(new, old.read_bytes())
    return kept / f"{name}.json"


def is_imported(results: Results) -> bool:
    """Whether the records were measured by another harness: those say where they stand."""
    return bool(results.records) and all(record.origin == "measured" and record.source for record in results.records)


def _others(run: RunDirectory, recipe: Recipe) -> list[Cell]:
    """Cells with a result, of steps or benchmarks that the recipe does not ask for now."""
    asked = set(all_cells(recipe))
    paths = ((step, path) for step in all_steps(recipe) for path in sorted(run.evaluated(step).glob("*/result.json")))
    cells = (Cell(step, path.parent.name) for step, path in paths)
    return [cell for cell in cells if cell not in asked]


def keep_fuller(path: Path, cells: Iterable[Cell]) -> None:
    """Keep a results file with cells that the recipe does not ask for and the run folder does not have.

    Args:
        cells: those that the recipe asks for, or that there are results of.

    Raises:
        UserError: the file has others.
    """
    if not path.exists():
        return
    if lost := sorted(cells_of(read_results(path)) - set(cells)):
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
