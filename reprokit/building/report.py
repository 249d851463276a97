"""`report.json` of a data set, and the same as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from reprokit.building.overlap import WORDS, Overlap

QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)


class Lengths(msgspec.Struct, kw_only=True):
    """Lengths of the responses of the rows; `quantiles`: "0.1" -> length."""

    unit: Literal["tokens", "words"]
    counted_by: str
    mean: float
    quantiles: dict[str, float]


class BuildReport(msgspec.Struct, kw_only=True):
    """What became of everything that was read, and of everything that was drawn.

    `sha256` is that of the file, `made_from` the digest of what it was made from. `questions` and `responses`: what
    became of how many; in `questions` each counts once.
    """

    dataset: str
    made: str
    rows: int
    sha256: str
    made_from: str
    seed: int
    questions: dict[str, int]
    responses: dict[str, int]
    lengths: Lengths
    overlap: dict[str, Overlap]
    sources: dict[str, Any]
    settings: dict[str, Any]
    provenance: dict[str, Any]
    notes: list[str]


def lengths_of(unit: Literal["tokens", "words"], counted_by: str, lengths: Sequence[int]) -> Lengths:
    """Mean and quantiles of at least one length."""
    return Lengths(
        unit=unit,
        counted_by=counted_by,
        mean=round(float(np.mean(lengths)), 2),
        quantiles={str(share): float(np.quantile(lengths, share)) for share in QUANTILES},
    )


def describe(report: BuildReport) -> str:
    """The report as text to read before a training."""
    quantiles = ", ".join(
        f"{100 * float(share):g} %: {value:,.0f}" for share, value in report.lengths.quantiles.items()
    )
    lines = [
        f"{report.dataset}: {report.rows:,} rows, sha256 {report.sha256}",
        *_counts("questions", report.questions),
        *_counts("responses", report.responses),
        f"lengths of the responses in {report.lengths.unit} ({report.lengths.counted_by}): mean "
        f"{report.lengths.mean:,.0f}; {quantiles}",
    ]
    for name, found in report.overlap.items():
        lines.append(
            f"overlap with {name}, {WORDS}-grams of words: {found.items_found} of {found.items} problems, in "
            f"{found.rows} rows (kept, as in the paper)"
        )
    return "\n".join([*lines, *report.notes])


def _counts(what: str, counts: Mapping[str, int]) -> list[str]:
    if not counts:
        return []
    total = sum(counts.values())
    shown = (f"  {number:>9,}  {100 * number / total:5.1f} %  {outcome}" for outcome, number in counts.items())
    return [f"{what}: {total:,}", *shown]
