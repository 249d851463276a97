"""What may not change between two launches of a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import msgspec

from reprokit.recipe.schema import Recipe, Source, TrainingSection

# Settings that say how a training is computed and what is kept of it, not what it computes: a training that ran out of
# memory or time may go on with others.
FREE = (
    "cpu_offload",
    "gradient_checkpointing",
    "micro_batch_tokens",
    "sequence_parallel",
    "state_every",
    "tensorboard",
)


def fixed_training(training: TrainingSection) -> dict[str, Any]:
    """Keys and plain values of what decides the weights that a training on given rows ends with, rounding apart."""
    settings = msgspec.to_builtins(asdict(training))
    return {key: value for key, value in settings.items() if key not in FREE}


def changes(before: dict[str, Any], now: dict[str, Any], label: str = "{}") -> list[str]:
    """One line per key whose value differs; `label` says how a key is shown."""
    keys = [key for key in sorted({*before, *now}) if before.get(key) != now.get(key)]
    return [f"  {label.format(key)}: {before.get(key)} -> {now.get(key)}" for key in keys]


def fixed_settings(recipe: Recipe) -> dict[str, Any]:
    """Dotted keys and plain values of what may not change once anything was made with it; evaluation may."""
    sections = {"model": {key: value for key, value in asdict(recipe.model).items() if key != "shape"}}
    if recipe.source is not Source.model:
        data = {key: value for key, value in asdict(recipe.data).items() if key != "mean_length"}
        sections |= {"data": data, "training": fixed_training(recipe.training)}
    if recipe.source is Source.published:
        sections["published"] = asdict(recipe.published)
    settings = {f"{name}.{key}": value for name, section in sections.items() for key, value in section.items()}
    return {"source": recipe.source.value, **settings}
