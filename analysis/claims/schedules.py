"""Claims on how long and how hard to train (Sections 3.3 and 3.4): repetition, full data, over-fitting."""

from __future__ import annotations

from dataclasses import replace

from analysis.claims.course import courses_of, largest_change, length_course, mean_course, score_course
from analysis.claims.evidence import Evidence
from analysis.claims.findings import MARGIN, TOKENS, Claimed, finding, in_words, nothing, on_mean, on_most
from analysis.claims.optimisation import ENOUGH, LENGTH_MARGIN, extreme_status
from analysis.claims.runs import COT, TrainedRun
from analysis.claims.verdict import Finding
from analysis.names import IN_DOMAIN, OUT_OF_DOMAIN, group_of

LONG, HIGH = 16, 1e-4  # epochs and learning rate of the aggressive schedule, which does not decay
ALL = "all benchmarks"
FEW_EPOCHS = "fewer rows several times, against all rows once"


def lower_rate(evidence: Evidence) -> list[Finding]:
    """After as many epochs (fewer than eight) of the same data a run with a lower learning rate ends lower (Table 4).

    On most benchmarks. That fewer steps are worse is not tested.
    """
    findings = []
    for low in evidence.runs:
        for high in evidence.runs:
            if _is_slower(low, high) and evidence.concerns(low, high):
                cells = evidence.second_minus_first(high, low)
                findings += on_most(Claimed("the lower learning rate ends lower", -1), low.name, ALL, cells)
    return findings


def _is_slower(low: TrainedRun, high: TrainedRun) -> bool:
    settings = [(run.model, run.data, run.rows, run.epochs, run.batch, run.schedule) for run in (low, high)]
    is_short = low.data == COT and (low.epochs or ENOUGH) < ENOUGH
    return is_short and settings[0] == settings[1] and 0.0 < (low.learning_rate or 0.0) < (high.learning_rate or 0.0)


def repeated_exposure(evidence: Evidence) -> list[Finding]:
    """Few rows seen several times beat many rows seen once, at equal steps and batch, on most benchmarks (Table 1)."""
    findings = []
    for few, once in _exposures(evidence):
        if evidence.concerns(few, once):
            cells = evidence.second_minus_first(once, few)
            findings += on_most(Claimed("repeated exposure beats one pass", 1), few.name, FEW_EPOCHS, cells)
    return findings


def full_data(evidence: Evidence) -> list[Finding]:
    """Many rows seen several times, in a larger batch, beat both at equal steps, on most benchmarks (Table 1)."""
    findings = []
    for few, once in _exposures(evidence):
        for full in evidence.runs:
            if not _is_full(full, few, once) or not evidence.concerns(full, few, once):
                continue
            for other, name in ((few, "few rows several times"), (once, "all rows once")):
                cells = evidence.second_minus_first(other, full)
                claimed = Claimed(f"full data several times beats {name}", 1)
                findings += on_most(claimed, full.name, "all benchmarks", cells)
    return findings


def _exposures(evidence: Evidence) -> list[tuple[TrainedRun, TrainedRun]]:
    """Runs of a model on fewer rows several times and on more rows once, with the same number of steps."""
    runs = [run for run in evidence.runs if run.data == COT and run.rows and run.epochs]
    return [
        (few, once)
        for few in runs
        for once in runs
        if _settings(few) == _settings(once) and few.batch == once.batch
        if (few.rows or 0) < (once.rows or 0) and (few.epochs or 0) > 1 == once.epochs
        if _last(evidence, few) == _last(evidence, once) is not None
    ]


def _settings(run: TrainedRun) -> tuple[object, ...]:
    return (run.model, run.learning_rate, run.schedule)


def _is_full(run: TrainedRun, few: TrainedRun, once: TrainedRun) -> bool:
    same = run.data == COT and _settings(run) == _settings(few) and run.rows == once.rows
    return same and run.epochs == few.epochs and (run.batch or 0) > (few.batch or 0)


def _last(evidence: Evidence, run: TrainedRun) -> int | None:
    return evidence.last_step(run)


def over_fitting(evidence: Evidence) -> list[Finding]:
    """With 16 epochs at a high learning rate that does not decay, scores fall from their best and length rises again.

    Fall and rise are tested over all checkpoints at once. Only there: each other run of 16 epochs of the same model,
    data and batch ends higher.
    """
    findings = []
    for run in evidence.runs:
        if _is_aggressive(run):
            others = [other for other in evidence.runs if _is_milder(other, run)]
            if evidence.concerns(run, *others):
                findings += _over_fitted(evidence, run) + _only_there(evidence, run, others)
    return findings


def _is_aggressive(run: TrainedRun) -> bool:
    return (
        run.data == COT
        and run.schedule == "constant"
        and (run.epochs or 0) >= LONG
        and (run.learning_rate or 0) >= HIGH
    )


def _is_milder(other: TrainedRun, run: TrainedRun) -> bool:
    same = (other.model, other.data, other.rows, other.batch) == (run.model, run.data, run.rows, run.batch)
    return same and (other.epochs or 0) >= LONG and not _is_aggressive(other)


def _over_fitted(evidence: Evidence, run: TrainedRun) -> list[Finding]:
    courses, label, findings = courses_of(evidence, run, score_course), run.name, []
    for group in (OUT_OF_DOMAIN, IN_DOMAIN):
        claimed = Claimed(f"{group} falls from its best", 1)
        course = mean_course([course for column, course in courses.items() if group_of(column.benchmark) == group])
        if course is None:
            findings.append(nothing(claimed, label, group, "no scores over the steps"))
            continue
        peak = largest_change(course, course.steps[1:-1], course.steps[-1], 1)
        text = f"best at step {peak.step}, above the end by {in_words(peak.change)}"
        findings.append(finding(claimed, label, group, peak.change, extreme_status(peak, MARGIN), text))
    claimed = Claimed("length rises again", 1)
    lengths = mean_course(list(courses_of(evidence, run, length_course).values()))
    if lengths is None:
        return [*findings, nothing(claimed, label, "all benchmarks", "no lengths over the steps")]
    low = largest_change(lengths, lengths.steps[1:-1], lengths.steps[-1], -1)
    found = replace(low.change, effect=-low.change.effect, low=-(low.change.high or 0.0), high=-(low.change.low or 0.0))
    status = extreme_status(low, LENGTH_MARGIN * float(lengths.values[0]))
    text = f"shortest at step {low.step}, the end {in_words(found, TOKENS)}"
    return [*findings, finding(claimed, label, "mean of all benchmarks", found, status, text, TOKENS)]


def _only_there(evidence: Evidence, run: TrainedRun, others: list[TrainedRun]) -> list[Finding]:
    claimed = Claimed("the same length of training without it ends higher", 1)
    if not others:
        return [nothing(claimed, run.name, "all benchmarks", "no other run as long")]
    findings = []
    for other in others:
        findings += on_mean(claimed, other.name, "all benchmarks", evidence.second_minus_first(run, other))
    return findings
