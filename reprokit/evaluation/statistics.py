"""Means over items and samples with their intervals, pass@k and maj@k."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A mean and its 95 % interval, in the unit of the values."""

    mean: float
    low: float
    high: float


def estimate(values: Sequence[float], weights: Sequence[float], clusters: Sequence[Hashable], share: bool) -> Estimate:
    """Weighted mean of one value per item, with an interval clustered by `clusters`.

    Args:
        values: per item the mean over its samples: samples of one item are not independent.
        weights: of the items; those of weight 0 are left out.
        clusters: items of the same cluster are not independent of each other.
        share: whether values lie in 0..1. Then the spread is turned into an effective number of independent trials for
            Wilson's interval, which stays sensible at 0 and 1; else the interval is the normal one.

    Raises:
        ValueError: no item has a weight above 0.
    """
    kept = [place for place, weight in enumerate(weights) if weight > 0]
    if not kept:
        raise ValueError("no items to take a mean of")
    value, weight = np.array(values, dtype=float)[kept], np.array(weights, dtype=float)[kept]
    mean = float((value * weight).sum() / weight.sum())
    residuals: dict[Hashable, float] = {}
    for place, residual in zip(kept, weight * (value - mean), strict=True):
        residuals[clusters[place]] = residuals.get(clusters[place], 0.0) + float(residual)
    count = len(residuals)
    squares = sum(residual**2 for residual in residuals.values())
    variance = squares * count / (count - 1) / float(weight.sum()) ** 2 if count > 1 else 0.0
    if not share:
        half = Z_95 * math.sqrt(variance)
        return Estimate(mean, mean - half, mean + half)
    mean = min(1.0, max(0.0, mean))  # rounding
    trials = mean * (1.0 - mean) / variance if variance > 0.0 else float(count)
    return Estimate(mean, *wilson_interval(mean, trials))


def wilson_interval(proportion: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion; `trials` may be an effective, fractional number."""
    centre = (proportion + Z_95**2 / (2 * trials)) / (1 + Z_95**2 / trials)
    spread = proportion * (1 - proportion) / trials + Z_95**2 / (4 * trials**2)
    half = Z_95 * math.sqrt(spread) / (1 + Z_95**2 / trials)
    # At 0 and 1 the bound equals the proportion, but for rounding.
    return max(0.0, min(proportion, centre - half)), min(1.0, max(proportion, centre + half))


def majority(values: Sequence[float], answers: Sequence[str | None]) -> float:
    """maj@k: the value of the answer that most samples of an item gave, the earliest of those that tie.

    0 if no sample gave an answer.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    winner = votes.most_common(1)[0][0]
    return values[answers.index(winner)]
