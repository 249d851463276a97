"""Samples of a run -> what analysis wants to know of single items and responses, without the samples.

Of every cell: the value of each item, lengths, thinking that never ends, behaviours; of some items what they were
answered (`reprokit.evaluation.cases`). Kept beside each result as `details.json`, and made anew when the result or the
rules have changed.
"""

from __future__ import annotations

import math
import os
from array import array
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from reprokit import benchmarks
from reprokit.benchmarks.grading.answers import OPEN, after_thinking
from reprokit.benchmarks.interface import Item
from reprokit.errors import UserError
from reprokit.evaluation.behaviour import DETECTORS, behaviours
from reprokit.evaluation.behaviour_rules import DETECTORS_VERSION
from reprokit.evaluation.cases import Place, cases_of, scores_path
from reprokit.evaluation.summary import QUANTILES, headline_values
from reprokit.recipe.schema import Recipe
from reprokit.records.details import Behaviour, CellDetails, Details, Lengths
from reprokit.records.files import read_json, read_json_lines, sha256_of_file, write_json
from reprokit.records.result import FINISHED, Cell, CellResult, MetricResult, Sample, SampleScore
from reprokit.records.run_directory import RunDirectory
from reprokit.records.sample_log import items_digest


def gather(run: RunDirectory, recipe: Recipe, cells: Sequence[Cell]) -> Details:
    """Details of the cells, which have results, and cases of the run.

    A cell whose samples or scores are gone, damaged, or not those of its result has none: that is printed. Of a run
    without step 0, the cases take that of the run folder beside it that is named after the model.

    Raises:
        UserError: the memory does not do.
    """
    found = _of_cells(run, sorted(set(cells)))
    shown = {Place(run, Cell(cell.step, cell.benchmark)): cell for cell in found}
    base = RunDirectory(run.root.parent / recipe.model.name)
    without_base = {cell.benchmark for cell in found} - {cell.benchmark for cell in found if cell.step == 0}
    lent = [Cell(0, name) for name in sorted(without_base) if base.result(0, name).exists()]
    problems = {(cell.benchmark, cell.digest, cell.metric) for cell in found}
    for cell in _of_cells(base, lent):
        if (cell.benchmark, cell.digest, cell.metric) in problems:  # else it answered others
            shown[Place(base, Cell(0, cell.benchmark))] = cell
    return Details(run=recipe.name, cells=found, cases=cases_of(shown))


def _of_cells(run: RunDirectory, cells: Sequence[Cell]) -> list[CellDetails]:
    """The details of those cells that have any; they are made in as many processes as there are cores."""
    kept = {cell: _kept(run, cell) for cell in cells}
    stale = [cell for cell, details in kept.items() if details is None]
    if stale:
        measure = partial(_measured, run, prompts_open_thinking(run.tokenizer))
        processes = min(len(os.sched_getaffinity(0)), len(stale))
        try:
            with ProcessPoolExecutor(processes) as pool:
                made = dict(zip(stale, pool.map(measure, stale), strict=True))
        except BrokenProcessPool as error:
            raise UserError("a process that read samples was killed: give the job that collects more memory") from error
        for cell, details in made.items():
            if isinstance(details, str):
                print(f"no details of {cell.benchmark}, step {cell.step}: {details}", flush=True)
            else:
                kept[cell] = details
    return [details for details in kept.values() if details is not None]


def _path(run: RunDirectory, cell: Cell) -> Path:
    return run.cell(cell.step, cell.benchmark) / "details.json"


def _kept(run: RunDirectory, cell: Cell) -> CellDetails | None:
    """The details that were made of the present result by the present rules; None without."""
    try:
        kept = read_json(_path(run, cell), CellDetails)
        current = sha256_of_file(run.result(cell.step, cell.benchmark))
    except (FileNotFoundError, ValueError):  # damaged
        return None
    return kept if (kept.made_from, kept.detectors) == (current, DETECTORS_VERSION) else None


def _measured(run: RunDirectory, opened: bool, cell: Cell) -> CellDetails | str:
    """The details of a cell, written beside its result; or, in words, why there are none."""
    try:
        details = measure(run, cell, opened)
    except FileNotFoundError as error:
        return f"there is no {Path(error.filename).name}"
    except UserError as error:  # a damaged file, or a benchmark that is not known any more
        return str(error)
    except (KeyError, ValueError) as error:
        return f"samples and scores are not those of its result: {error}"
    with suppress(OSError):  # a run folder of somebody else: made anew the next time
        write_json(_path(run, cell), details)
    return details


def measure(run: RunDirectory, cell: Cell, opened: bool) -> CellDetails:
    """The details of one cell.

    Args:
        opened: whether the prompt has opened the thinking.

    Raises:
        FileNotFoundError: result, problems, samples or scores are not there.
        KeyError, ValueError: some are damaged, or do not belong together.
    """
    path = run.result(cell.step, cell.benchmark)
    result = read_json(path, CellResult)
    if result.items != items_digest(run, cell.benchmark):
        raise ValueError("the problems were prepared anew")
    headline = next((metric for metric in result.metrics if metric.headline), None)
    if headline is None:
        raise ValueError("it has no headline")
    values = _values(run, cell, result, headline)
    responses = _Responses(run.samples(cell.step, cell.benchmark), opened)
    if not _same(responses.mean_tokens(), result.mean_response_tokens):
        raise ValueError("the lengths are not the same")
    return CellDetails(
        step=cell.step,
        benchmark=cell.benchmark,
        metric=headline.metric,
        unit=headline.unit,
        digest=result.items,
        items=values.items,
        weights=values.weights,
        clusters=values.clusters,
        finished=_lengths(responses.finished),
        truncated=_lengths(responses.truncated),
        unfinished_thinking=responses.unfinished_thinking,
        behaviour=responses.behaviour(),
        made_from=sha256_of_file(path),
        detectors=DETECTORS_VERSION,
    )


@dataclass(frozen=True)
class _Values:
    """Fields of `CellDetails`."""

    items: dict[str, float]
    weights: dict[str, float]
    clusters: dict[str, str]


def _values(run: RunDirectory, cell: Cell, result: CellResult, headline: MetricResult) -> _Values:
    """Raises ValueError if the weighted mean of the values is not the headline."""
    items = list(read_json_lines(run.items(cell.benchmark), Item))
    scores = list(read_json_lines(scores_path(run, cell), SampleScore))
    benchmark, samples = benchmarks.get(cell.benchmark), result.settings["samples"]
    values, weights = headline_values(benchmark, items, scores, samples, result.judges)
    scale = 100.0 if headline.unit == "percent" else 1.0
    mean = scale * float(np.average(list(values.values()), weights=list(weights.values()))) if values else None
    if not _same(mean, headline.value):
        raise ValueError(f"{headline.metric} is {headline.value} in the result, and {mean} by the scores")
    sizes = Counter(item.cluster for item in items)
    return _Values(
        values,
        weights if len(set(weights.values())) > 1 else {},
        {item.id: item.cluster for item in items if item.id in values and item.cluster and sizes[item.cluster] > 1},
    )


def _same(one: float | None, other: float | None) -> bool:
    """Whether two numbers are the same up to rounding."""
    return one == other or (one is not None and other is not None and math.isclose(one, other, abs_tol=1e-9))


class _Responses:
    """What is counted of the samples of a cell, read one by one: there may be a gigabyte of them.

    Raises:
        FileNotFoundError, ValueError: they are not there, or damaged.
    """

    def __init__(self, samples: Path, opened: bool) -> None:
        self.finished, self.truncated = array("q"), array("q")
        self.unfinished_thinking = 0
        self._with, self._times = Counter[str](), Counter[str]()
        for sample in read_json_lines(samples, Sample):
            (self.finished if sample.finish_reason == FINISHED else self.truncated).append(sample.response_tokens)
            self.unfinished_thinking += after_thinking(OPEN + sample.text if opened else sample.text) is None
            found = behaviours(sample.text)
            self._times.update(found)
            self._with.update(name for name, times in found.items() if times)

    @property
    def tokens(self) -> int:
        return sum(self.finished) + sum(self.truncated)

    def mean_tokens(self) -> float | None:
        responses = len(self.finished) + len(self.truncated)
        return self.tokens / responses if responses else None

    def behaviour(self) -> dict[str, Behaviour]:
        """By detector; a response without tokens has no behaviour."""
        thousands = self.tokens / 1000
        return {
            name: Behaviour(
                responses=self._with[name],
                occurrences=self._times[name],
                per_thousand_tokens=self._times[name] / thousands if thousands else 0.0,
            )
            for name in DETECTORS
        }


def _lengths(tokens: Sequence[int]) -> Lengths:
    if not tokens:
        return Lengths(responses=0, mean_tokens=None)
    quantiles = {str(share): float(np.quantile(tokens, share)) for share in QUANTILES}
    return Lengths(responses=len(tokens), mean_tokens=float(np.mean(tokens)), quantiles=quantiles)


def prompts_open_thinking(tokenizer: Path) -> bool:
    """Whether the chat template ends a prompt within the thinking, so that responses have no opening tag."""
    template = tokenizer / "chat_template.jinja"
    config = template if template.exists() else tokenizer / "tokenizer_config.json"
    if not config.exists() or OPEN not in config.read_text():
        return False  # spares most runs the loading of a tokenizer
    from transformers import AutoTokenizer

    from reprokit.data.chat import render

    prompt = render([{"role": "user", "content": "?"}], AutoTokenizer.from_pretrained(tokenizer))
    return after_thinking(prompt) is None
