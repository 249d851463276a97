"""Scores and samples of one cell -> its result: every metric of both protocols, lengths, fractions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import numpy as np

from reprokit.benchmarks.interface import PROTOCOLS, Benchmark, Item, Metric, Protocol
from reprokit.evaluation.statistics import Estimate, estimate, majority
from reprokit.records.provenance import package_versions
from reprokit.records.result import FINISHED, CellResult, Generation, MetricResult, Sample, SampleScore

Combine = Callable[[Sequence[float], Sequence[str | None]], float]  # values and answers of an item -> one value
SCORERS = ("math-verify", "latex2sympy2-extended", "sympy", "lm-eval", "reasoning-gym")
QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9, 0.99)


def summarise(
    benchmark: Benchmark,
    items: Sequence[Item],
    samples: Sequence[Sample],
    scores: Sequence[SampleScore],
    generation: Generation,
    judges: Mapping[str, str],
    data: dict[str, Any],
) -> CellResult:
    """The result of one cell.

    Args:
        judges: key of each judge that was asked -> what it is.
        data: where the problems are from.

    Raises:
        ValueError: not every (item, sample) is there exactly once, or none is: never a score of 0 in silence.
    """
    by_item = _by_item(benchmark.name, items, scores, generation.settings["samples"])
    lengths = np.array([sample.response_tokens for sample in samples])
    return CellResult(
        step=generation.step,
        benchmark=benchmark.name,
        metrics=[result for protocol in PROTOCOLS for result in _metrics(benchmark, items, by_item, protocol, judges)],
        mean_response_tokens=float(lengths.mean()),
        response_token_quantiles={str(share): float(np.quantile(lengths, share)) for share in QUANTILES},
        truncated_fraction=float(np.mean([sample.finish_reason != FINISHED for sample in samples])),
        no_answer_fraction={
            protocol: float(np.mean([score.answers[protocol] is None for score in scores])) for protocol in PROTOCOLS
        },
        settings=generation.settings,
        items=generation.items,
        scorer=benchmark.version,
        scored_with={**package_versions(SCORERS), **benchmark.facts()},
        judges=dict(judges),
        data=data,
        provenance=generation.provenance,
    )


def _by_item(
    name: str, items: Sequence[Item], scores: Sequence[SampleScore], samples: int
) -> dict[str, list[SampleScore]]:
    """The scores of each item, by sample."""
    by_item: dict[str, list[SampleScore]] = {item.id: [] for item in items}
    for score in scores:
        by_item[score.item].append(score)
    wrong = [item for item, found in by_item.items() if sorted(score.sample for score in found) != list(range(samples))]
    if not by_item or wrong:
        raise ValueError(f"{name}: {len(by_item)} items, incomplete or repeated samples of {wrong[:5]}")
    return {item: sorted(found, key=lambda score: score.sample) for item, found in by_item.items()}


def _metrics(
    benchmark: Benchmark,
    items: Sequence[Item],
    by_item: Mapping[str, Sequence[SampleScore]],
    protocol: Protocol,
    judges: Mapping[str, str],
) -> list[MetricResult]:
    """Every metric of one protocol; those of judges that were not asked are left out."""
    results: list[MetricResult] = []
    for metric in benchmark.metrics:
        if metric.judge and metric.judge not in judges:
            continue
        table = _Table(benchmark, items, by_item, protocol, metric, judges.get(metric.judge))
        results.append(table.result(table.title, _mean, headline=not results and protocol == "official"))
        if table.samples > 1 and metric is benchmark.metrics[0] and not metric.judge:
            results.append(table.result(f"pass@{table.samples}", lambda values, answers: max(values)))
            if benchmark.votes:
                results.append(table.result(f"maj@{table.samples}", majority))
    return results


def headline_metric(benchmark: Benchmark, judges: Container[str]) -> Metric:
    """The metric whose official value is the headline of a result: the first one that no absent judge is needed for."""
    return next(metric for metric in benchmark.metrics if not metric.judge or metric.judge in judges)


def headline_values(
    benchmark: Benchmark, items: Sequence[Item], scores: Sequence[SampleScore], samples: int, judges: Container[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """By item, the mean over its `samples` of the headline metric, and the weight of the item.

    Items without weight or usable verdict are left out. The weighted mean is the headline value, in 0..1 for percent.

    Raises:
        ValueError: not every (item, sample) is there exactly once, or none is.
    """
    by_item = _by_item(benchmark.name, items, scores, samples)
    table = _Table(benchmark, items, by_item, "official", headline_metric(benchmark, judges), None)
    values = {item.id: _mean(table.values[item.id], []) for item in table.items}
    return values, dict(zip(values, table.weights, strict=True))


def _mean(values: Sequence[float], answers: Sequence[str | None]) -> float:
    return float(np.mean(values))


class _Table:
    """Values of one metric under one protocol, by item."""

    def __init__(
        self,
        benchmark: Benchmark,
        items: Sequence[Item],
        by_item: Mapping[str, Sequence[SampleScore]],
        protocol: Protocol,
        metric: Metric,
        judge: str | None,
    ) -> None:
        weights = benchmark.weights(items, protocol, metric.name)
        scores = {item.id: by_item[item.id] for item, weight in zip(items, weights, strict=True) if weight > 0}
        self.metric, self.protocol, self.judge = metric, protocol, judge
        self.samples = max(len(found) for found in scores.values())
        self.values: dict[str, list[float]] = {}
        self.answers: dict[str, list[str | None]] = {}
        for item, found in scores.items():
            judged = [score for score in found if metric.name in score.values[protocol]]
            if judged:
                self.values[item] = [score.values[protocol][metric.name] for score in judged]
                self.answers[item] = [score.answers[protocol] for score in judged]
        self.missing = sum(map(len, scores.values())) - sum(map(len, self.values.values()))
        kept = [(item, weight) for item, weight in zip(items, weights, strict=True) if item.id in self.values]
        self.items = [item for item, _ in kept]
        self.weights = [weight for _, weight in kept]

    @property
    def title(self) -> str:
        return self.metric.title or (f"avg@{self.samples}" if self.samples > 1 else "pass@1")

    def result(self, title: str, combine: Combine, headline: bool = False) -> MetricResult:
        """The metric with `combine` making one value of those of an item."""
        combined = {item.id: float(combine(self.values[item.id], self.answers[item.id])) for item in self.items}
        whole = self._estimate(self.items, self.weights, combined) if combined else None
        scale = 100.0 if self.metric.unit == "percent" else 1.0
        return MetricResult(
            protocol=self.protocol,
            metric=title,
            unit=self.metric.unit,
            value=None if whole is None else scale * whole.mean,
            interval_low=None if whole is None else scale * whole.low,
            interval_high=None if whole is None else scale * whole.high,
            items=len(self.items),
            samples_per_item=self.samples,
            headline=headline,
            missing=self.missing,
            judge=self.judge,
            groups=self._groups(combined, scale),
        )

    def _estimate(self, items: Sequence[Item], weights: Sequence[float], combined: Mapping[str, float]) -> Estimate:
        values = [combined[item.id] for item in items]
        clusters = [item.cluster or item.id for item in items]
        return estimate(values, weights, clusters, share=self.metric.unit == "percent")

    def _groups(self, combined: Mapping[str, float], scale: float) -> dict[str, float]:
        members: dict[str, list[tuple[Item, float]]] = defaultdict(list)
        for item, weight in zip(self.items, self.weights, strict=True):
            members[item.group].append((item, weight))
        if set(members) <= {""}:
            return {}
        return {
            group: scale * self._estimate([item for item, _ in found], [weight for _, weight in found], combined).mean
            for group, found in sorted(members.items())
        }
