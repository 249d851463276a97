"""The claims of the paper, each a named test on records."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.claims.catalogue import CLAIMS, Claim
from analysis.claims.evidence import Evidence
from analysis.claims.optimisation import NO_COURSE
from analysis.claims.verdict import Finding, Status, Used, Verdict
from analysis.library import Library
from reprokit.errors import UserError
from reprokit.records.record import Origin

__all__ = ["CLAIMS", "Claim", "Finding", "Used", "Verdict", "judge"]
ORIGINS: tuple[Origin, ...] = ("measured", "reported")


def judge(
    library: Library, origin: Origin | None = None, run: str | None = None, claims: Sequence[Claim] = CLAIMS
) -> list[Verdict]:
    """The verdict on every claim, in the order of the paper.

    Args:
        origin: judge measured or reported numbers; None: first measured, then reported ones, each for themselves.
        run: only what this run takes part in, on the numbers that it has.

    Raises:
        UserError: no such run.
    """
    if run is not None and run not in library.runs(origin):
        there = ", ".join(library.runs(origin)) or "none"
        raise UserError(f"run={run}: no {origin or ''} results of it; there are: {there}".replace("  ", " "))
    origins = [which for which in ORIGINS if origin in (None, which) and (run is None or run in library.runs(which))]
    return [_verdict(claim, Evidence(library, which, run)) for which in origins for claim in claims]


def _verdict(claim: Claim, evidence: Evidence) -> Verdict:
    findings = claim.test(evidence)
    parts = [one for one in findings if one.counts]
    status = overall(parts)
    shown = next((one for one in parts if one.status == status), next((one for one in parts if one.p_value), None))
    numbers = (None, None, None, "") if shown is None else (shown.effect, shown.low, shown.high, shown.unit)
    wanted = [one.more_items for one in parts if one.more_items is not None] if status == "undecided" else []
    used = sorted(evidence.used, key=lambda one: (one.run, one.step, one.benchmark, one.file))
    return Verdict(
        claim.id,
        claim.title,
        claim.statement,
        claim.where,
        status,
        *numbers,
        _detail(findings, sum(1 for note in evidence.used.values() if note)),
        tuple(findings),
        tuple(used) if parts else (),
        evidence.origin,
        max(wanted, default=None),
    )


def overall(parts: Sequence[Finding]) -> Status:
    """One part that is not reproduced or undecided makes the claim so; half of the parts at least must be tested."""
    tested = [one.status for one in parts if one.status != "no data"]
    if "not reproduced" in tested:
        return "not reproduced"
    if "undecided" in tested:
        return "undecided"
    return "reproduced" if tested and 2 * len(tested) >= len(parts) else "no data"


def _detail(findings: Sequence[Finding], doubtful: int) -> str:
    parts = [one for one in findings if one.counts]
    if not parts:
        return "No runs or numbers to test it on." + _without(findings)
    words = [f"{one.part} ({one.subject}, {one.scope}): {one.status}. {one.text}." for one in parts]
    if len({one.status for one in parts}) > 1:
        counts = {
            status: sum(one.status == status for one in parts) for status in dict.fromkeys(p.status for p in parts)
        }
        words.insert(0, f"Of {len(parts)} parts: {', '.join(f'{count} {status}' for status, count in counts.items())}.")
    if doubtful:
        words.append(f"{doubtful} of the numbers used carry a note of doubt.")
    return " ".join(words) + _without(findings)


def _without(findings: Sequence[Finding]) -> str:
    """Names those that a test would need the course of."""
    names = [one.subject for one in findings if one.text == NO_COURSE]
    return f" No scores over the steps of {', '.join(dict.fromkeys(names))}." if names else ""
