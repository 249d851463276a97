"""The sampling settings of one benchmark of a recipe."""

from __future__ import annotations

from typing import Any

import msgspec

from reprokit.recipe.schema import EvaluationSection

# What the official code asks of each benchmark, where it differs from OTHERS. `context` counts prompt and response.
OFFICIAL: dict[str, dict[str, Any]] = {
    "math500": {"samples": 3, "skip_special_tokens": True},
    "aime24": {"samples": 10, "skip_special_tokens": True},
    "livecodebench_v2": {"samples": 3, "context": 32768},
    "gpqa_diamond": {"samples": 3, "context": 32768},
    "mmlu_pro": {"top_p": 1.0, "context": 32768},
    "ifeval": {"top_p": 1.0, "context": 32768},
    "alpaca_eval": {
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 50,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "max_tokens": 16384,
        "skip_special_tokens": True,
    },
    "halueval": {"top_p": 1.0, "context": 32768},
    "truthfulqa": {"top_p": 1.0, "context": 32768},
    "hex_phi": {"top_p": 1.0, "max_tokens": 16384, "context": 16384, "skip_special_tokens": True},
}
OTHERS: dict[str, Any] = {
    "samples": 1,
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "max_tokens": 32768,
    "context": None,
    "skip_special_tokens": False,
}


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """How responses are drawn.

    `max_tokens` counts the response, `context` prompt and response (None: the model's own context length); `items`
    None means all problems there are; `top_k` 0 means no limit. `skip_special_tokens` takes special tokens (such as
    `<|im_end|>`, where the model goes on after it) out of the text.
    """

    items: int | None
    samples: int
    temperature: float
    top_p: float
    max_tokens: int
    seed: int
    top_k: int = 0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    context: int | None = None
    skip_special_tokens: bool = False


def settings(evaluation: EvaluationSection, benchmark: str) -> dict[str, Any]:
    """`sampling` as plain data, as it stands in files."""
    return dict(msgspec.to_builtins(sampling(evaluation, benchmark)))


def sampling(evaluation: EvaluationSection, benchmark: str) -> Sampling:
    """Settings of `benchmark`: its own where given, else those of `evaluation`, else the official code's."""
    own = evaluation.benchmarks[benchmark]
    official = {**OTHERS, **OFFICIAL.get(benchmark, {})}

    def value(key: str) -> Any:
        for section in (own, evaluation):
            if getattr(section, key, None) is not None:
                return getattr(section, key)
        return official[key]

    return Sampling(items=own.items, seed=evaluation.seed, **{key: value(key) for key in OTHERS})
