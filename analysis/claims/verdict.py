"""What a claim's test gives back: a verdict made of findings, and the records behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from reprokit.records.record import Origin

Status = Literal["reproduced", "not reproduced", "undecided", "no data"]


@dataclass(frozen=True)
class Used:
    """A record that a verdict rests on; `benchmark` is its display name."""

    run: str
    step: int
    benchmark: str
    file: str


@dataclass(frozen=True)
class Finding:
    """One tested statement: `part` of the claim, of one `subject` (run, model, pair) on one `scope` (benchmark, group).

    Numbers are in `unit`; those that are not known are None. `counts`: whether the verdict depends on it; the others
    show what is behind it. `text` says in words what was found.
    """

    part: str
    subject: str
    scope: str
    status: Status
    text: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    unit: str = "percentage points"
    p_value: float | None = None
    detectable: float | None = None
    more_items: int | None = None
    counts: bool = False


@dataclass(frozen=True)
class Verdict:
    """The outcome of one claim on the numbers of one origin.

    `effect` with its 95 % interval `low`..`high` in `unit` is that of the first part that counts; `more_items` the
    largest that an undecided part asks for. `caveats`: what a reader must know of the numbers, a sentence each.
    """

    claim: str
    title: str
    statement: str
    where: str
    status: Status
    effect: float | None
    low: float | None
    high: float | None
    unit: str
    detail: str
    findings: tuple[Finding, ...]
    records: tuple[Used, ...]
    origin: Origin
    more_items: int | None = None
    caveats: tuple[str, ...] = ()
