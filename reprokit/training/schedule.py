"""Learning rate of every optimiser step (protocol of the official code: linear warm-up, then cosine or constant)."""

from __future__ import annotations

import math

from reprokit.recipe.schema import Schedule, TrainingSection


def learning_rate(training: TrainingSection, update: int, total: int) -> float:
    """Learning rate of update `update` (0-based) out of `total`.

    Warm-up takes `int(warmup_fraction * total)` updates and starts at 0, so the very first update moves nothing;
    the cosine ends at 0 after the last update.
    """
    warmup = int(training.warmup_fraction * total)
    if update < warmup:
        return training.learning_rate * update / warmup
    if training.schedule is Schedule.constant:
        return training.learning_rate
    return training.learning_rate * 0.5 * (1.0 + math.cos(math.pi * (update - warmup) / (total - warmup)))
