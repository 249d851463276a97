"""A run folder with samples, scores and results of two benchmarks, made without a model in about a second."""

from __future__ import annotations

from pathlib import Path

from reprokit.benchmarks.interface import Item
from reprokit.campaign.cells import all_cells
from reprokit.campaign.graph import Workspace
from reprokit.campaign.run_folder import write_recipe
from reprokit.evaluation.score_stage import score_run
from reprokit.preparation.benchmark_items import prepare_items
from reprokit.recipe import load
from reprokit.recipe.sampling import settings
from reprokit.recipe.schema import Recipe
from reprokit.records.files import read_json_lines, write_json, write_json_lines
from reprokit.records.result import FINISHED, Cell, Generation, Sample
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import items_digest

WORDS = (
    "evaluation.steps=[0,10,20]",
    *(f"evaluation.benchmarks.{name}" for name in ("countdown.items=4", "chain_sum.items=3")),
    *(f"evaluation.benchmarks.{name}=false" for name in ("countdown_repeats", "syllogism")),
)


def finished_run(workspace: Path) -> RunDirectory:
    """`runs/mini`, of which steps 0, 10 and 20 have answered 4 problems of Countdown and 3 sums, none of them right."""
    loaded = load("mini", WORDS)
    run = Workspace(workspace).run("mini")
    write_recipe(run, loaded)
    prepare_items(run, loaded.recipe)
    for cell in all_cells(loaded.recipe):
        _answer(run, loaded.recipe, cell)
    score_run(run, loaded.recipe, run.progress("score"))
    return run


def _answer(run: RunDirectory, recipe: Recipe, cell: Cell) -> None:
    asked = settings(recipe.evaluation, cell.benchmark)
    given = {"seed": 0, "request": "", "prompt_tokens": 5, "response_tokens": 7 + cell.step, "seconds": 0.1}
    items = read_json_lines(run.items(cell.benchmark), Item)
    samples = [
        Sample(
            benchmark=cell.benchmark,
            item=item.id,
            sample=number,
            text="<think>Wait, let me check.</think> It is 1.",
            finish_reason=FINISHED,
            **given,
        )
        for item in items
        for number in range(asked["samples"])
    ]
    write_json_lines(run.samples(cell.step, cell.benchmark), samples)
    made = Generation(
        step=cell.step,
        benchmark=cell.benchmark,
        settings=asked,
        items=items_digest(run, cell.benchmark) or "",
        provenance={"engine": "none"},
    )
    write_json(run.generation(cell.step, cell.benchmark), made)
