"""What `collect` boils the samples of a run down to: values of single items, lengths, behaviour, some cases to read.

`results/details/<run>.json` stands beside `results/<run>.json`; paired comparisons, behaviour and the case browser read
it, so that analysis needs no samples.
"""

from __future__ import annotations

from pathlib import Path
from typing import Optional

import msgspec

from reprokit.records.files import DamagedFileError, read_json

SCHEMA_VERSION = 1


class Lengths(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Response lengths in tokens of some responses of a cell; None where there is no response."""

    responses: int
    mean_tokens: Optional[float]
    quantiles: dict[str, float] = msgspec.field(default_factory=dict)


class Behaviour(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """How often a detector found something: in how many responses, how often in all, how often per 1,000 tokens."""

    responses: int
    occurrences: int
    per_thousand_tokens: float


class CellDetails(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One run x step x benchmark.

    `items`: per item the mean over its samples of the headline metric in the official protocol, in 0..1 where the unit
    of the metric is percent; their mean with `weights`, empty where all weigh the same, is the headline value.
    `clusters` names the cluster of items that are not independent of others. `digest` is the sha256 of the problems.
    `finished` are responses that ended by themselves, `truncated` all others.
    `unfinished_thinking`: responses that opened their thinking, by tag or by template, and never closed it.
    `made_from` is the sha256 of the `result.json` that this belongs to, `detectors` the version of the detectors.
    """

    step: int
    benchmark: str
    metric: str
    unit: str
    digest: str
    items: dict[str, float]
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    clusters: dict[str, str] = msgspec.field(default_factory=dict)
    finished: Lengths
    truncated: Lengths
    unfinished_thinking: int
    behaviour: dict[str, Behaviour]
    made_from: str
    detectors: int

    @property
    def responses(self) -> int:
        """Number of responses of the cell."""
        return self.finished.responses + self.truncated.responses


class CaseResponse(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The first response of one checkpoint; `omitted` characters were cut out of the middle of `text`, at `cut_at`."""

    step: int
    text: str
    cut_at: Optional[int] = None
    omitted: int = 0
    value: Optional[float] = None
    answer: Optional[str] = None
    response_tokens: int
    finish_reason: str


class Case(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One problem and what several checkpoints answered; `pattern` says in words how the value went."""

    benchmark: str
    item: str
    pattern: str
    prompt: str
    reference: Optional[str] = None
    responses: list[CaseResponse]


class Details(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Content of `results/details/<run>.json`."""

    schema: int = SCHEMA_VERSION
    run: str
    cells: list[CellDetails]
    cases: list[Case] = msgspec.field(default_factory=list)

    def cell(self, step: int, benchmark: str) -> CellDetails | None:
        """The details of one cell; None if there are none."""
        return next((cell for cell in self.cells if (cell.step, cell.benchmark) == (step, benchmark)), None)


def details_path(results: Path, run: str) -> Path:
    """Where the details of a run lie in a results folder."""
    return results / "details" / f"{run}.json"


def read_details(results: Path, run: str) -> Details | None:
    """The details of a run; None if there are none.

    Raises:
        DamagedFileError: they are damaged, of another shape, or of another schema version.
    """
    path = details_path(results, run)
    if not path.exists():
        return None
    details = read_json(path, Details)
    if details.schema != SCHEMA_VERSION:
        raise DamagedFileError(
            f"{path}: schema {details.schema}, this version reads {SCHEMA_VERSION}; move it away and collect again"
        )
    return details
