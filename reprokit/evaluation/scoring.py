"""Samples -> scores -> one result per cell. Needs no GPU and no engine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from reprokit import benchmarks
from reprokit.benchmarks.interface import Item
from reprokit.evaluation.statistics import average_at_k
from reprokit.recipe.sampling import Sampling
from reprokit.records.files import write_json, write_json_lines
from reprokit.records.result import CellResult, Sample, SampleScore
from reprokit.records.run_directory import RunDirectory


def score_samples(benchmark: str, items: Sequence[Item], samples: Sequence[Sample]) -> list[SampleScore]:
    """One score per sample, in the order of the samples."""
    scorer = benchmarks.get(benchmark)
    by_id = {item.id: item for item in items}
    scores = []
    for sample in samples:
        score = scorer.score(by_id[sample.item], sample.text)
        scores.append(SampleScore(item=sample.item, sample=sample.sample, score=score.value, answer=score.answer))
    return scores


def summarise(
    step: int,
    benchmark: str,
    sampling: Sampling,
    samples: Sequence[Sample],
    scores: Sequence[SampleScore],
    provenance: dict[str, Any],
) -> CellResult:
    """The result of one cell.

    Raises:
        ValueError: not every (item, sample) is there exactly once, or there is none: never a score of 0 in silence.
    """
    by_item: dict[str, list[float]] = defaultdict(list)
    for score in scores:
        by_item[score.item].append(score.score)
    wrong = [item for item, values in by_item.items() if len(values) != sampling.samples]
    if not by_item or wrong:
        raise ValueError(f"{benchmark}, step {step}: {len(by_item)} items, incomplete samples for {wrong[:5]}")
    estimate = average_at_k(list(by_item.values()))
    return CellResult(
        step=step,
        benchmark=benchmark,
        metric=f"avg@{sampling.samples}",
        value=100 * estimate.mean,
        interval_low=100 * estimate.low,
        interval_high=100 * estimate.high,
        items=len(by_item),
        samples_per_item=sampling.samples,
        mean_response_tokens=float(np.mean([sample.response_tokens for sample in samples])),
        truncated_fraction=float(np.mean([sample.finish_reason == "length" for sample in samples])),
        no_answer_fraction=float(np.mean([score.answer is None for score in scores])),
        settings=msgspec.to_builtins(sampling),
        provenance=provenance,
    )


def finish_cell(
    run: RunDirectory,
    step: int,
    benchmark: str,
    sampling: Sampling,
    items: Sequence[Item],
    samples: Sequence[Sample],
    provenance: dict[str, Any],
) -> CellResult:
    """Score `samples` and write samples.jsonl, scores.jsonl and, last, result.json."""
    scores = score_samples(benchmark, items, samples)
    result = summarise(step, benchmark, sampling, samples, scores, provenance)
    cell = run.cell(step, benchmark)
    write_json_lines(cell / "samples.jsonl", samples)
    write_json_lines(cell / "scores.jsonl", scores)
    write_json(run.result(step, benchmark), result)
    return result
