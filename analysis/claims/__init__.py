"""The claims of the paper, each a named test on records."""

from __future__ import annotations

from collections.abc import Sequence

from analysis.claims.catalogue import CLAIMS, Claim
from analysis.claims.caveats import Caveats
from analysis.claims.evidence import Evidence
from analysis.claims.findings import UNTESTABLE
from analysis.claims.optimisation import NO_COURSE
from analysis.claims.verdict import Finding, Status, Used, Verdict
from analysis.holdings import Library
from reprokit.errors import UserError
from reprokit.records.record import Origin

__all__ = ["CLAIMS", "Claim", "Finding", "RULE", "Used", "Verdict", "judge"]
ORIGINS: tuple[Origin, ...] = ("measured", "reported")
RULE = (
    "No data: no part of the claim can be tested; else it is undecided while a run that it rests on is unfinished, not "
    "reproduced if one part is not, reproduced if all parts are, and undecided in every other case. A part on numbers "
    "whose spread nobody knows (reported rewards) is shown and does not count."
)


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
    caveats = evidence.caveats()
    status: Status = "undecided" if caveats.open_end and overall(parts) != "no data" else overall(parts)
    shown = next(
        (one for one in parts if one.status == status), next((one for one in parts if one.p_value is not None), None)
    )
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
        _detail(findings, sum(1 for entry in evidence.used.values() if entry.record.note), caveats),
        tuple(findings),
        tuple(used) if parts else (),
        evidence.origin,
        max(wanted, default=None),
        caveats.sentences if parts else (),
    )


def overall(parts: Sequence[Finding]) -> Status:
    """The verdict that the parts of a claim give, by `RULE`."""
    found = {one.status for one in parts}
    if "not reproduced" in found:
        return "not reproduced"
    if found <= {"no data"}:
        return "no data"
    return "reproduced" if found == {"reproduced"} else "undecided"


def _detail(findings: Sequence[Finding], doubtful: int, caveats: Caveats) -> str:
    parts = [one for one in findings if one.counts]
    if not parts:
        return " ".join(["No runs or numbers to test it on.", *caveats.left_out]) + _without(findings)
    words = [f"{one.part} ({one.subject}, {one.scope}): {one.status}. {one.text}." for one in parts]
    shown = [one for one in findings if one.text.endswith(UNTESTABLE)]
    words += [f"{one.part} ({one.subject}, {one.scope}): not counted. {one.text}." for one in shown]
    if len({one.status for one in parts}) > 1:
        counts = {
            status: sum(one.status == status for one in parts) for status in dict.fromkeys(p.status for p in parts)
        }
        words.insert(0, f"Of {len(parts)} parts: {', '.join(f'{count} {status}' for status, count in counts.items())}.")
    if caveats.open_end:
        words.insert(0, f"Not judged yet: {'; '.join(caveats.open_end)}.")
    words += (*caveats.left_out, *caveats.notes)
    if doubtful:
        words.append(f"{doubtful} of the numbers used {'carries' if doubtful == 1 else 'carry'} a note of doubt.")
    return " ".join(words) + _without(findings)


def _without(findings: Sequence[Finding]) -> str:
    """Names those that a test would need the course of."""
    names = [one.subject for one in findings if one.text == NO_COURSE]
    return f" No scores over the steps of {', '.join(dict.fromkeys(names))}." if names else ""
