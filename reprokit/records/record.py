"""A record is one number: the only thing that analysis reads.

The fields are the same for what was measured here and for what the paper reported, so the same code draws both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Optional

import msgspec

from reprokit.records.files import DamagedFileError, read_json, write_json

SCHEMA_VERSION = 1
Origin = Literal["measured", "reported"]


class Record(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """One number of one benchmark at one step of one run.

    `value`, `interval_low` and `interval_high` are in `unit`; `mean_response_tokens` in tokens; `truncated_fraction`
    and `no_answer_fraction` in 0..1. A field that is not known is None. `learning_rate` to `schedule` are None for
    an untrained base. `protocol` is how a measured number was scored (official or clean); of several numbers of a
    benchmark the `headline` is the one to show. `source` says where a reported number stands (paper table or section).
    `checkpoints` says where those of a measured run come from: its own training, published by others, or a model that
    is evaluated as it is.
    """

    run: str
    model: str
    dataset: Optional[str] = None
    learning_rate: Optional[float] = None
    epochs: Optional[float] = None
    batch_size: Optional[int] = None
    schedule: Optional[str] = None
    step: int
    benchmark: str
    metric: str
    protocol: Optional[str] = None
    headline: bool = True
    value: float
    unit: str
    items: Optional[int] = None
    samples_per_item: Optional[int] = None
    interval_low: Optional[float] = None
    interval_high: Optional[float] = None
    mean_response_tokens: Optional[float] = None
    truncated_fraction: Optional[float] = None
    no_answer_fraction: Optional[float] = None
    origin: Origin
    checkpoints: Optional[Literal["training", "published", "model"]] = None
    source: Optional[str] = None
    note: Optional[str] = None
    provenance: Optional[str] = None


class MissingCell(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A run x step x benchmark that the recipe asks for and no result exists of."""

    step: int
    benchmark: str


class Results(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Content of `results/<run>.json`: the records of one run, or of one collection of reported numbers.

    `provenance` maps the provenance key of records to what made them.
    """

    schema: int = SCHEMA_VERSION
    run: str
    records: list[Record]
    missing: list[MissingCell] = msgspec.field(default_factory=list)
    provenance: dict[str, dict[str, Any]] = msgspec.field(default_factory=dict)


def read_results(path: Path) -> Results:
    """Read `results/<run>.json`.

    Raises:
        DamagedFileError: the file is damaged, of another shape, or of another schema version.
    """
    results = read_json(path, Results)
    if results.schema != SCHEMA_VERSION:
        raise DamagedFileError(
            f"{path}: schema {results.schema}, this version reads {SCHEMA_VERSION}; move it away and collect again"
        )
    return results


def write_results(path: Path, results: Results) -> None:
    """Write `results/<run>.json` atomically."""
    write_json(path, results)
