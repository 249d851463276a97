"""What one cell (run x step x benchmark) leaves on disk: samples, scores, one result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional

import msgspec

from reprokit.records.files import DamagedFileError, read_json

FINISHED = "stop"  # finish reason of a response that ended by itself


@dataclass(frozen=True, order=True)
class Cell:
    """One run x step x benchmark of a run; step 0 is the base."""

    step: int
    benchmark: str


class Sample(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One line of `samples.jsonl` or of a worker's log: a response as the engine gave it.

    `response_tokens` are counted without the prompt; `seconds` are from the hand-over to the engine to the end, and
    hold the time in which it waited there. `finish_reason` is the engine's (`stop`, `length`), or `no_room` for a
    prompt that fills the context. `request` is a digest of the prompt tokens and the sampling settings.
    """

    benchmark: str
    item: str
    sample: int
    seed: int
    request: str
    text: str
    prompt_tokens: int
    response_tokens: int
    finish_reason: str
    seconds: float


class Generation(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`generation.json`, written when `samples.jsonl` is complete: what was asked for and what made it.

    `settings` are the sampling settings, `items` the sha256 of the problems; samples of others do not count as done.
    """

    step: int
    benchmark: str
    settings: dict[str, Any]
    items: str
    provenance: dict[str, Any]

    @property
    def cell(self) -> Cell:
        """The cell that this is of, wherever it lies."""
        return Cell(self.step, self.benchmark)


class SampleScore(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One line of `scores.jsonl`: by protocol, the values of the metrics and the answer that was read off the text."""

    item: str
    sample: int
    values: dict[str, dict[str, float]]
    answers: dict[str, Optional[str]]


class MetricResult(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One number of a cell: `value` and its 95 % interval in `unit`; None if no sample has a usable verdict.

    `items` and `samples_per_item` say over what it was taken; `missing` counts samples without a usable verdict of
    `judge`. The headline is what figures show. `groups` has the value by part, category or difficulty.
    """

    protocol: Literal["official", "clean"]
    metric: str
    unit: Literal["percent", "reward", "score"]
    value: Optional[float]
    interval_low: Optional[float]
    interval_high: Optional[float]
    items: int
    samples_per_item: int
    headline: bool
    missing: int = 0
    judge: Optional[str] = None
    groups: dict[str, float] = msgspec.field(default_factory=dict)


class CellResult(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`result.json`, written last: every metric of a cell; lengths in tokens, fractions in 0..1.

    `response_token_quantiles`: "0.1" to "0.99" -> tokens. `no_answer_fraction`: protocol -> fraction. `scorer` is the
    version of the benchmark's scoring, `judges` name and digest what judged; `settings`, `items` as in `Generation`.
    """

    step: int
    benchmark: str
    metrics: list[MetricResult]
    mean_response_tokens: float
    response_token_quantiles: dict[str, float]
    truncated_fraction: float
    no_answer_fraction: dict[str, float]
    settings: dict[str, Any]
    items: str
    scorer: int
    scored_with: dict[str, str]
    judges: dict[str, str]
    data: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def cell(self) -> Cell:
        """The cell that this is of, wherever it lies."""
        return Cell(self.step, self.benchmark)


def read_generation(path: Path) -> Generation | None:
    """A `generation.json`; None if there is none or it is damaged."""
    try:
        return read_json(path, Generation) if path.exists() else None
    except DamagedFileError:
        return None


def read_result(path: Path) -> CellResult | None:
    """A `result.json`; None if there is none or it is damaged."""
    try:
        return read_json(path, CellResult) if path.exists() else None
    except DamagedFileError:
        return None
