"""avg@k and its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Estimate:
    """A mean score and its 95 % interval, all in 0..1."""

    mean: float
    low: float
    high: float


def average_at_k(scores: Sequence[Sequence[float]]) -> Estimate:
    """Mean score over items and samples with an interval clustered by item.

    Args:
        scores: per item the scores of its k samples, each in 0..1.

    Samples of one item are not independent, so the spread is that of the item means; it is turned into an effective
    number of independent trials for Wilson's interval, which stays sensible at 0 % and 100 %.
    """
    means = np.array([float(np.mean(samples)) for samples in scores])
    items = len(means)
    mean = float(means.mean())
    variance = float(means.var(ddof=1)) / items if items > 1 else 0.0
    trials = mean * (1.0 - mean) / variance if variance > 0.0 else float(items)
    low, high = wilson_interval(mean, trials)
    return Estimate(mean, low, high)


def wilson_interval(proportion: float, trials: float) -> tuple[float, float]:
    """Wilson's 95 % score interval of a proportion; `trials` may be an effective, fractional number."""
    centre = (proportion + Z_95**2 / (2 * trials)) / (1 + Z_95**2 / trials)
    spread = proportion * (1 - proportion) / trials + Z_95**2 / (4 * trials**2)
    half = Z_95 * math.sqrt(spread) / (1 + Z_95**2 / trials)
    # At 0 and 1 the bound equals the proportion, but for rounding.
    return max(0.0, min(proportion, centre - half)), min(1.0, max(proportion, centre + half))
