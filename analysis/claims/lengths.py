"""Response lengths that are reported as a range over benchmarks only (Appendix D)."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.claims.evidence import Evidence
from analysis.claims.findings import TOKENS, Claimed, finding
from analysis.claims.runs import TrainedRun
from analysis.claims.verdict import Finding
from analysis.runs import Entry
from analysis.statistics import Difference

LOWEST, HIGHEST = "approximate minimum", "approximate maximum"


def reported_shrink(evidence: Evidence, claimed: Claimed, runs: Iterable[TrainedRun]) -> list[Finding]:
    """Per run with ranges at two steps: whether every benchmark is shorter at the later one: shown, not tested."""
    findings = []
    for run in runs:
        lows, highs = _ranges(evidence, run, LOWEST), _ranges(evidence, run, HIGHEST)
        steps = sorted(lows.keys() & highs.keys())
        if len(steps) > 1:
            for entry in (lows[steps[0]], highs[steps[0]], lows[steps[-1]], highs[steps[-1]]):
                evidence.use(entry)
            findings.append(_shrink(evidence, claimed, run, (lows, highs), (steps[0], steps[-1])))
    return findings


def _ranges(evidence: Evidence, run: TrainedRun, end: str) -> dict[int, Entry]:
    entries = evidence.holdings.entries(run.name, evidence.origin)
    return {entry.record.step: entry for entry in entries if entry.record.metric.endswith(end)}


def _shrink(
    evidence: Evidence,
    claimed: Claimed,
    run: TrainedRun,
    ranges: tuple[dict[int, Entry], dict[int, Entry]],
    steps: tuple[int, int],
) -> Finding:
    before, after = ([ends[step].record.value for ends in ranges] for step in steps)
    at_least = before[0] - after[1]  # the shortest before, the longest after
    shown = Difference(-at_least, None, None, None, "ranges", None, None, None)
    text = (
        f"{before[0]:,.0f} to {before[1]:,.0f} tokens at step {steps[0]}, {after[0]:,.0f} to {after[1]:,.0f} at step "
        f"{steps[1]} (rounded ranges over benchmarks)"
    )
    text += f": each is shorter, by {at_least:,.0f} at least" if at_least > 0 else ": they overlap"
    text += "; neither which benchmarks these are nor any spread is known: cannot be tested"
    return finding(claimed, run.name, "range over benchmarks", shown, "undecided", text, TOKENS)
