"""What one cell (run x step x benchmark) leaves on disk: samples, scores, one result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import msgspec

from reprokit.records.files import DamagedFileError, read_json


@dataclass(frozen=True, order=True)
class Cell:
    """One run x step x benchmark of a run; step 0 is the base."""

    step: int
    benchmark: str


class Sample(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One line of `samples.jsonl`: a response as the engine gave it; tokens are counted without the prompt."""

    item: str
    sample: int
    seed: int
    text: str
    prompt_tokens: int
    response_tokens: int
    finish_reason: str


class SampleScore(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One line of `scores.jsonl`: the score in 0..1 and the answer that was read off the text."""

    item: str
    sample: int
    score: float
    answer: Optional[str] = None


class CellResult(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`result.json`, written last: value and 95 % interval in percent, lengths in tokens, fractions in 0..1.

    `settings` are the sampling settings that were asked for: a cell made with others does not count as done.
    """

    step: int
    benchmark: str
    metric: str
    value: float
    interval_low: float
    interval_high: float
    items: int
    samples_per_item: int
    mean_response_tokens: float
    truncated_fraction: float
    no_answer_fraction: float
    settings: dict[str, Any]
    provenance: dict[str, Any]


def is_done(result: Path, settings: dict[str, Any]) -> bool:
    """Whether a `result.json` is there, is whole and was made with these settings."""
    try:
        return result.exists() and read_json(result, CellResult).settings == settings
    except DamagedFileError:
        return False
