"""Claims on the model (Section 5) and on safety (Section 6)."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from analysis.claims.course import Course, courses_of, length_course
from analysis.claims.data import MODELS, compared
from analysis.claims.evidence import Cells, Evidence, choose, of_columns, of_group
from analysis.claims.findings import (
    TOKENS,
    Claimed,
    direction,
    finding,
    in_words,
    mean_of,
    minus,
    nothing,
    on_mean,
    on_most,
)
from analysis.claims.optimisation import LENGTH_MARGIN
from analysis.claims.runs import COT, NO_COT, TrainedRun
from analysis.claims.verdict import Finding
from analysis.columns import REASONING, SAFETY_COLUMNS
from analysis.names import OUT_OF_DOMAIN
from analysis.statistics import Z, from_interval

ASR = SAFETY_COLUMNS[0]
MMLU_PRO = REASONING[4]
SMALL = 2.0  # billion parameters: the paper says of its 1.7B that it ends near or below its base


def capability_order(evidence: Evidence) -> list[Finding]:
    """Of two neighbouring sizes of one family, data and recipe the same, the larger ends higher on most benchmarks.

    That of their bases the larger is better already is not taken off; `capability_gains` does.
    """
    claimed, findings = Claimed("the larger model ends higher", 1), []
    for family in _families(evidence):
        for smaller, larger in pairwise(family):
            if evidence.concerns(smaller, larger):
                cells = evidence.second_minus_first(smaller, larger)
                findings += on_most(claimed, f"{larger.model} over {smaller.model}", "all benchmarks", cells)
    return findings


def capability_gains(evidence: Evidence) -> list[Finding]:
    """The largest model of a family gains on most benchmarks, and more on OOD reasoning than the smallest.

    A model below 2 billion parameters ends near or below its base but for MMLU-Pro: a mean gain of more than 2 points
    on the others is excluded, and MMLU-Pro rises. The gain of every model is shown: gains need not follow size.
    """
    findings = []
    for family in _families(evidence):
        if evidence.concerns(*family):
            gains = {run: evidence.against_base(run) for run in family}
            largest = evidence.label(family[-1])
            broadly = Claimed("the largest gains on most benchmarks", 1)
            findings += on_most(broadly, largest, "all benchmarks", gains[family[-1]])
            findings += _ends(evidence, gains) + _small(evidence, gains) + _each_gain(evidence, gains)
    return findings


def _families(evidence: Evidence) -> list[list[TrainedRun]]:
    """The models of each family on long math thinking with the same recipe, by size; families of several sizes."""
    runs = [run for run in evidence.main_runs(COT) if run.size is not None and evidence.last_step(run)]
    grouped: dict[str, dict[float, TrainedRun]] = {}
    for run in runs:
        grouped.setdefault(run.family, {}).setdefault(run.size or 0.0, run)
    return [list(sizes.values()) for _, sizes in sorted(grouped.items()) if len(sizes) > 1]


def _ends(evidence: Evidence, gains: dict[TrainedRun, Cells]) -> list[Finding]:
    claimed = Claimed("the largest gains more OOD than the smallest", 1)
    smallest, largest = list(gains)[0], list(gains)[-1]
    low, high = (mean_of(choose(gains[run], of_group(OUT_OF_DOMAIN))) for run in (smallest, largest))
    subject = f"{evidence.label(largest)} against {evidence.label(smallest)}"
    if low is None or high is None:
        return [nothing(claimed, subject, OUT_OF_DOMAIN, "no numbers of one of them")]
    found = minus(high, low)
    text = f"{in_words(high)}; against {in_words(low)}"
    return [finding(claimed, subject, OUT_OF_DOMAIN, found, direction(found, 1), text)]


def _small(evidence: Evidence, gains: dict[TrainedRun, Cells]) -> list[Finding]:
    findings = []
    for run, cells in gains.items():
        if run.size is not None and run.size < SMALL:
            rest = choose(cells, lambda column: column != MMLU_PRO)
            claimed = Claimed("a small model ends near or below its base", 0)
            findings += on_mean(claimed, evidence.label(run), "all but MMLU-Pro", rest)
            up = Claimed("MMLU-Pro of a small model rises", 1)
            findings += on_mean(up, evidence.label(run), "MMLU-Pro", choose(cells, of_columns(MMLU_PRO)))[:1]
    return findings


def _each_gain(evidence: Evidence, gains: dict[TrainedRun, Cells]) -> list[Finding]:
    found = {run: mean_of(choose(cells, of_group(OUT_OF_DOMAIN))) for run, cells in gains.items()}
    known = {run: gain for run, gain in found.items() if gain is not None}
    if not known:
        return []
    most = max(known, key=lambda run: known[run].effect)
    caution = (
        "the largest gains most" if most == list(gains)[-1] else f"not in the order of size: {most.model} gains most"
    )
    findings = []
    for run, gain in known.items():
        text = f"{in_words(gain)}; {caution}"
        claimed = Claimed("gain of each model", 1, counts=False)
        findings.append(finding(claimed, evidence.label(run), OUT_OF_DOMAIN, gain, direction(gain, 1), text))
    return findings


def length_by_size(evidence: Evidence) -> list[Finding]:
    """At the last step the smallest model of a family gives longer responses than the largest.

    The mean over the benchmarks that both have lengths of; with which step the shortening begins is not tested.
    """
    findings = []
    for family in _families(evidence):
        if not evidence.concerns(*family):
            continue
        small, large = (courses_of(evidence, run, length_course) for run in (family[0], family[-1]))
        shared = sorted(small.keys() & large.keys(), key=lambda column: column.place)
        if shared:
            findings.append(_longer(evidence, family, [small[one] for one in shared], [large[one] for one in shared]))
    return findings


def _longer(evidence: Evidence, family: list[TrainedRun], small: list[Course], large: list[Course]) -> Finding:
    claimed = Claimed("the smallest model ends with longer responses", 1)
    subject = f"{evidence.label(family[0])} against {evidence.label(family[-1])}"
    ends = [float(np.mean([course.values[-1] for course in courses])) for courses in (small, large)]
    errors = [math.sqrt(course.covariance[-1, -1]) for course in (*small, *large)]
    effect, half = ends[0] - ends[1], Z * math.hypot(*errors) / len(small)
    found = from_interval(effect, effect - half, effect + half, "of two means, errors propagated", None)
    text = f"{ends[0]:,.0f} and {ends[1]:,.0f} tokens at the end: {in_words(found, TOKENS)}"
    status = direction(found, 1, LENGTH_MARGIN * ends[1])
    return finding(claimed, subject, f"mean of {len(small)} benchmarks", found, status, text, TOKENS)


def asymmetry(evidence: Evidence) -> list[Finding]:
    """Long thinking raises reasoning and, on HEx-PHI, the attack success rate: over the base, and over NoCoT data."""
    cells: Cells = {}
    for run in evidence.main_runs(COT):
        if evidence.concerns(run):
            cells |= evidence.against_base(run, of_columns(*REASONING, ASR))
    if not cells:
        return []
    findings = on_mean(Claimed("reasoning up", 1), MODELS, "reasoning", choose(cells, of_columns(*REASONING)))
    safety = choose(cells, of_columns(ASR))
    findings += on_mean(Claimed("attack success rate up", 1), MODELS, ASR.title, safety)
    against = compared(evidence, NO_COT, COT, of_columns(ASR))
    return findings + on_mean(Claimed("attack success rate above NoCoT's", 1), MODELS, ASR.title, against)
