"""One evaluation worker: an engine that answers its share of the prompts of some checkpoints."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from reprokit.benchmarks.interface import Item
from reprokit.errors import UserError
from reprokit.evaluation.engine import Engine, Request
from reprokit.evaluation.scoring import finish_cell
from reprokit.recipe.sampling import Sampling, sampling
from reprokit.recipe.schema import Recipe
from reprokit.records import manifest, provenance
from reprokit.records.files import read_json_lines, write_json_lines
from reprokit.records.result import Cell, Sample, is_done
from reprokit.records.run_directory import RunDirectory

POLL_SECONDS = 0.2
PATIENCE_SECONDS = 6 * 3600


@dataclass(frozen=True)
class Share:
    """This worker is number `rank` of the `world_size` workers that share one array element."""

    rank: int
    world_size: int


def evaluate(run: RunDirectory, recipe: Recipe, cells: Sequence[Cell], share: Share, progress: Path, job: str) -> None:
    """Generate this worker's share of every cell; worker 0 then gathers all shares, scores and writes the results.

    Cells that are done are passed over, so that a restarted job repeats only what was lost. All benchmarks of a
    checkpoint are generated together: the engine stays full until the last long response of all of them.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(run.tokenizer)
    engine = Engine(run.tokenizer, recipe.training.precision.dtype, recipe.evaluation.max_model_length)
    for step in sorted({cell.step for cell in cells}):
        tasks = [_task(run, recipe, cell) for cell in cells if cell.step == step]
        missing = [task for task in tasks if not is_done(run.result(step, task.benchmark), task.settings)]
        if missing:
            _generate(run, step, missing, tokenizer, engine, share, progress, job)
        if share.rank == 0:
            for task in missing:
                _finish(run, step, task, share, job)


@dataclass(frozen=True)
class Task:
    """The problems of one benchmark and how to draw responses to them."""

    benchmark: str
    items: list[Item]
    sampling: Sampling

    @property
    def settings(self) -> dict[str, Any]:
        return msgspec.to_builtins(self.sampling)


def _task(run: RunDirectory, recipe: Recipe, cell: Cell) -> Task:
    items = list(read_json_lines(run.items(cell.benchmark), Item))
    return Task(cell.benchmark, items, sampling(recipe.evaluation, cell.benchmark))


def _generate(
    run: RunDirectory,
    step: int,
    tasks: Sequence[Task],
    tokenizer: Any,
    engine: Engine,
    share: Share,
    progress: Path,
    job: str,
) -> None:
    """Write this worker's share of the samples of every benchmark."""
    weights = run.weights(step)
    if share.rank == 0:  # once is enough: when one worker fails, the others are stopped
        manifest.verify(run.checkpoint(step))
    requests = [request for task in tasks for request in _requests(tokenizer, task)[share.rank :: share.world_size]]
    engine.load(weights)
    samples = engine.generate(requests, f"evaluate step {step}", progress if share.rank == 0 else None)
    for task in tasks:
        of_task = [
            sample for request, sample in zip(requests, samples, strict=True) if request.benchmark == task.benchmark
        ]
        write_json_lines(_part(run, step, task.benchmark, share, job), of_task)


def _requests(tokenizer: Any, task: Task) -> list[Request]:
    requests = []
    for item in task.items:
        prompt = tokenizer.apply_chat_template(
            item.messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        requests += [
            Request(task.benchmark, item.id, sample, prompt, task.sampling) for sample in range(task.sampling.samples)
        ]
    return requests


def _part(run: RunDirectory, step: int, benchmark: str, share: Share, job: str) -> Path:
    """A worker's share; named after the job so that shares of an earlier, cancelled job are never mixed in."""
    return run.cell(step, benchmark) / f"part_{share.rank:03d}_of_{share.world_size:03d}.{job}.jsonl"


def _finish(run: RunDirectory, step: int, task: Task, share: Share, job: str) -> None:
    """Gather all shares of one cell, score them and write its result."""
    parts = [
        _part(run, step, task.benchmark, Share(number, share.world_size), job) for number in range(share.world_size)
    ]
    _wait_for(parts)
    samples = [sample for part in parts for sample in read_json_lines(part, Sample)]
    samples.sort(key=lambda sample: (sample.item, sample.sample))
    made_by = {**provenance.gather(), "engines": share.world_size}
    finish_cell(run, step, task.benchmark, task.sampling, task.items, samples, made_by)
    for part in run.cell(step, task.benchmark).glob("part_*"):  # those of cancelled jobs too
        part.unlink()


def _wait_for(parts: Sequence[Path]) -> None:
    """Return once every worker has written its share."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while missing := [part.name for part in parts if not part.exists()]:
        if time.monotonic() > deadline:
            raise UserError(f"{parts[0].parent}: {missing} did not come; see the logs of these workers")
        time.sleep(POLL_SECONDS)
