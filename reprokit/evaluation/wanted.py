"""What the results of a run have to be made with: what was made with something else counts as missing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from reprokit import benchmarks
from reprokit.evaluation.judges import sources
from reprokit.evaluation.judges.replies import describe
from reprokit.evaluation.problems import current_source
from reprokit.recipe.sampling import settings
from reprokit.recipe.schema import Recipe
from reprokit.records.result import Cell, read_generation, read_result
from reprokit.records.run_directory import RunDirectory


@dataclass(frozen=True)
class Wanted:
    """Sampling settings, sha256 of the problems, and judges (key -> name and digest) of one benchmark of a recipe.

    `items` and `judges` are None where they have not been prepared as the recipe asks.
    """

    settings: dict[str, Any]
    items: str | None
    judges: dict[str, str] | None

    def has_result(self, run: RunDirectory, cell: Cell) -> bool:
        """Whether a cell has a result of this, of the samples that are there, if any, and of the present scoring."""
        result = read_result(run.result(cell.step, cell.benchmark))
        if result is None or result.cell != cell:
            return False
        if (result.settings, result.items, result.judges) != (self.settings, self.items, self.judges):
            return False
        made = read_generation(run.generation(cell.step, cell.benchmark))
        if made is not None and made.provenance != result.provenance:
            return False
        return result.scorer == benchmarks.get(cell.benchmark).version


def wanted(run: RunDirectory, recipe: Recipe, benchmark: str) -> Wanted:
    """What the results of a benchmark have to be made with."""
    source = current_source(run, recipe, benchmark)
    return Wanted(
        settings(recipe.evaluation, benchmark), source.items if source else None, _judges(run, recipe, benchmark)
    )


def _judges(run: RunDirectory, recipe: Recipe, benchmark: str) -> dict[str, str] | None:
    keys = sources.keys_of(recipe, benchmark)
    if not all(sources.is_as_asked(run, recipe, key) for key in keys):
        return None
    described = {key: describe(run, recipe, key) for key in keys}
    return {key: f"{judge['name']} ({judge['digest']})" for key, judge in described.items()}
