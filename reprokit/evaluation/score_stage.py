"""The stage that turns samples and judges' replies into results, for every cell whose result is not current."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reprokit import benchmarks
from reprokit.benchmarks.interface import Item, Response
from reprokit.errors import UserError, together
from reprokit.evaluation.judges.replies import Replies, judges_for, question_digest
from reprokit.evaluation.scoring import Pool, Task
from reprokit.evaluation.summary import summarise
from reprokit.evaluation.wanted import wanted
from reprokit.recipe import evaluated_steps
from reprokit.recipe.schema import Recipe
from reprokit.records.files import read_json, write_json, write_json_lines
from reprokit.records.progress import ProgressBar
from reprokit.records.result import FINISHED, Cell, Generation, Sample
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import is_generated, read_items, read_samples


def score_run(run: RunDirectory, recipe: Recipe, progress: Path, again: Sequence[str] = ()) -> None:
    """Score the cells that have their samples and no current result, or any of the benchmarks `again`.

    A cell whose judges have not answered everything is left without a result, and said to be.

    Raises:
        NodeError: samples of some benchmark are damaged, and are to be drawn again.
        UserError: some benchmark cannot be scored; all others are, in either case.
    """
    problems: dict[str, UserError] = {}
    for name in recipe.evaluation.benchmarks:
        try:
            _score_benchmark(run, recipe, name, progress, name in again)
        except UserError as error:
            problems[f"{name}: {error}"] = error
    if problems:
        raise together(problems)


def _score_benchmark(run: RunDirectory, recipe: Recipe, name: str, progress: Path, again: bool) -> None:
    needed = wanted(run, recipe, name)
    generated = [cell for cell in _cells(recipe, name) if is_generated(run, cell, needed.settings)]
    stale = [cell.step for cell in generated if again or not needed.has_result(run, cell)]
    if again and (without := [str(cell.step) for cell in _cells(recipe, name) if cell not in generated]):
        print(f"{name}: without samples of the recipe's settings, left as it is: step {', '.join(without)}", flush=True)
    if not stale:
        return
    if needed.judges is None:
        raise UserError("its judges are not prepared as the recipe asks; launch again, or with the stage prepare")
    _Scorer(run, recipe, name, needed.judges).score(stale, progress)


def _cells(recipe: Recipe, name: str) -> list[Cell]:
    return [Cell(step, name) for step in evaluated_steps(recipe)]


class _Scorer:
    """Scores cells of one benchmark."""

    def __init__(self, run: RunDirectory, recipe: Recipe, name: str, judged_by: dict[str, str]) -> None:
        self.run, self.recipe, self.judged_by = run, recipe, judged_by
        self.benchmark = benchmarks.get(name)

    def score(self, steps: Sequence[int], progress: Path) -> None:
        name = self.benchmark.name
        items = read_items(self.run, name, Item)
        by_id = {item.id: item for item in items}
        judges = judges_for(self.run, self.recipe, name)
        replies = {key: Replies(self.run, self.recipe, key) for key in judges}
        data = read_json(self.run.items_source(name), dict[str, Any])
        del data["asked"], data["stamps"]  # they may name folders of this machine
        with Pool(name, self.run.items(name)) as pool:
            for step in steps:
                samples = read_samples(self.run, step, name, len(items))
                tasks = [self._task(sample, by_id[sample.item], judges, replies) for sample in samples]
                if unanswered := tasks.count(None):
                    print(f"{name}, step {step}: the judges have not answered {unanswered} questions", flush=True)
                    continue
                with ProgressBar(total=len(tasks), desc=f"score {name}, step {step}", path=progress) as bar:
                    scores = pool.score([task for task in tasks if task is not None], bar.update)
                made = read_json(self.run.generation(step, name), Generation)
                result = summarise(self.benchmark, items, samples, scores, made, self.judged_by, data)
                write_json_lines(self.run.cell(step, name) / "scores.jsonl", scores)
                write_json(self.run.result(step, name), result)
            for key, given in replies.items():
                if given.cut:
                    print(f"{name}: the judge {key} saw {given.cut} responses cut to its limit", flush=True)
            if pool.failures:
                examples = "; ".join(pool.failures[:3])
                print(f"{name}: {len(pool.failures)} responses count as no answer: {examples}", flush=True)

    def _task(
        self, sample: Sample, item: Item, judges: Mapping[str, str], replies: Mapping[str, Replies]
    ) -> Task | None:
        """What the pool needs to score a sample; None while a judge has not answered."""
        response = Response(sample.text, sample.finish_reason == FINISHED)
        given = {}
        for question, asked in self.benchmark.questions(item, response, judges).items() if judges else ():
            reply = replies[asked.judge].get(question_digest(asked))
            if reply is None:
                return None
            given[question] = reply
        return Task(sample.item, sample.sample, sample.text, response.finished, given)
