"""What a run still has to do, as plans and estimates need it: steps to train, cells to generate and to judge."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from reprokit.campaign.cells import all_cells, cells_to_generate, cells_to_score
from reprokit.campaign.memory import ModelSize
from reprokit.data.report import Report
from reprokit.evaluation.judges import sources
from reprokit.recipe.derived import steps_of, total_steps
from reprokit.recipe.schema import Recipe, Source
from reprokit.records.files import DamagedFileError, read_json
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory

STAGES = ("train", "evaluate", "judge", "score", "collect", "figures")  # that jobs are submitted for


@dataclass(frozen=True)
class Work:
    """`trains`: whether there is anything to train, `trained`: the step that it goes on from.

    `cells` have no samples, `scored` no result, though they have samples or will have them.
    """

    recipe: Recipe
    stages: Sequence[str]
    trains: bool
    trained: int
    cells: Sequence[Cell]
    scored: Sequence[Cell]

    @cached_property
    def judges(self) -> dict[str, list[Cell]]:
        """Keys of the judge models that have to run on our own GPUs, and the cells that each is asked about."""
        asked: dict[str, list[Cell]] = {}
        for cell in self.scored if "judge" in self.stages else ():
            for key in sources.keys_of(self.recipe, cell.benchmark):
                if sources.section_of(self.recipe, key).endpoint is None:
                    asked.setdefault(key, []).append(cell)
        return asked

    @cached_property
    def is_judged(self) -> bool:
        """Whether a judge is asked at all, be it behind an endpoint."""
        asked = any(sources.keys_of(self.recipe, cell.benchmark) for cell in self.scored)
        return asked and "judge" in self.stages


def work_of(recipe: Recipe, run: RunDirectory | None, stages: Sequence[str] = STAGES) -> Work:
    """What `run` lacks and `stages` do; everything where it is None."""
    cells = all_cells(recipe)
    trains = recipe.source is Source.training and "train" in stages
    if run is None:
        return Work(recipe, stages, trains, 0, cells if "evaluate" in stages else [], cells)
    trains = trains and not run.training_complete.exists()
    trained = run.resume_step() if trains else 0
    generated = cells_to_generate(run, recipe, trained if trains else math.inf) if "evaluate" in stages else []
    return Work(recipe, stages, trains, trained, generated, cells_to_score(run, recipe, generated))


@dataclass(frozen=True)
class Rows:
    """Means over the training rows: tokens, target tokens, squared tokens; `known`: how they are known."""

    tokens: float
    targets: float
    squares: float
    known: str

    @classmethod
    def all_of(cls, tokens: float, known: str) -> Rows:
        """Rows of equal length, of which every token counts as a target."""
        return cls(tokens, tokens, tokens * tokens, known)


PREPARED, STATED, LONGEST = "prepared", "data.mean_length", "data.max_length"


def rows_of(recipe: Recipe, run: RunDirectory | None) -> tuple[Rows, int]:
    """The training rows, and the optimiser steps of the whole training: of one whose rows nobody has counted, the last
    step that is saved."""
    report = _report(run)
    if report is not None and report.max_length == recipe.data.max_length:
        rows = Rows(report.tokens / report.rows, report.target_tokens / report.rows, _mean_square(report), PREPARED)
        return rows, steps_of(report.rows, recipe)
    steps = total_steps(recipe) or max(recipe.training.checkpoint_steps)
    longest = recipe.data.max_length
    if recipe.data.mean_length is not None:
        return Rows.all_of(min(recipe.data.mean_length, longest), STATED), steps
    return Rows.all_of(longest, LONGEST), steps


def _report(run: RunDirectory | None) -> Report | None:
    try:
        return read_json(run.data / "report.json", Report) if run else None
    except (FileNotFoundError, DamagedFileError):
        return None


def _mean_square(report: Report) -> float:
    """Every row counts as the middle of its range of lengths."""
    lengths = report.length_histogram
    middles = [(low + above - 1) / 2 for low, above in zip(lengths.edges, lengths.edges[1:], strict=False)]
    return sum(count * middle**2 for count, middle in zip(lengths.counts, middles, strict=True)) / report.rows


def training_flops(model: ModelSize, rows: Rows, count: int) -> float:
    """Operations of a training over `count` rows, repetitions counted; see `Architecture.training_flops`.

    Where the sizes of the model are not known, 6 per parameter and token, without attention.
    """
    if model.architecture is None:
        return 6.0 * model.parameters * rows.tokens * count
    sums = (round(mean * count) for mean in (rows.tokens, rows.targets, rows.squares))
    return model.architecture.training_flops(*sums)
