"""The sampling settings of one benchmark of a recipe."""

from __future__ import annotations

import msgspec

from reprokit.recipe.schema import EvaluationSection


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How responses are drawn; `max_tokens` counts the response, `items` None means all problems there are."""

    items: int | None
    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int


def sampling(evaluation: EvaluationSection, benchmark: str) -> Sampling:
    """Settings of `benchmark`: its own where given, else those of `evaluation`."""
    own = evaluation.benchmarks[benchmark]
    return Sampling(
        items=own.items,
        samples=own.samples,
        temperature=evaluation.temperature if own.temperature is None else own.temperature,
        top_p=evaluation.top_p if own.top_p is None else own.top_p,
        max_tokens=evaluation.max_tokens if own.max_tokens is None else own.max_tokens,
        seed=evaluation.seed,
    )
