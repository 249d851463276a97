"""Claims on the course of training (Sections 3.1 and 3.2): one epoch, dip and recovery, response length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from analysis.claims.course import Course, Extreme, courses_of, largest_change, length_course, mean_course, score_course
from analysis.claims.evidence import Evidence, of_group
from analysis.claims.findings import (
    MARGIN,
    TOKENS,
    Claimed,
    direction,
    finding,
    in_words,
    minus,
    nothing,
    on_mean,
)
from analysis.claims.lengths import reported_shrink
from analysis.claims.runs import COT, TrainedRun, by_size
from analysis.claims.verdict import Finding, Status
from analysis.columns import Column
from analysis.holdings import BASE_STEP
from analysis.names import GENERAL, IN_DOMAIN, OUT_OF_DOMAIN, group_of
from analysis.statistics import Difference

CAPABLE = 3.0  # billion parameters: Sec. 5 has 4B and larger recover, and 1.7B not
ENOUGH = 8  # epochs: one or two are too short to recover (Sec. 3.1, Table 4)
SHORT = 160  # steps: one epoch of 20,480 rows is 80; the one of Table 1, setting 3, takes 640 small ones
LENGTH_MARGIN = 0.1  # of the base's length: less is no surge
ALL = "mean of all benchmarks"
NO_COURSE = "no scores over the steps"

DIP = Claimed("dip: scores fall below the base", -1)
RISE = Claimed("recovery: scores rise from the dip to the end", 1)
PASS = Claimed("the end is above the base on OOD reasoning", 1)


def one_epoch(evidence: Evidence) -> list[Finding]:
    """After one short epoch on long thinking: in-domain up, and the rest flat or down.

    Each on the mean over its benchmarks; flat is a rise of less than 2 points. Of several learning rates the highest.
    """
    findings = []
    short = [run for run in evidence.runs if run.data == COT and run.epochs == 1 and _end(evidence, run) <= SHORT]
    for run in short:
        rates = [other.learning_rate or 0.0 for other in short if other.model == run.model]
        if not evidence.concerns(run) or (run.learning_rate or 0.0) < max(rates):
            continue
        for group, part, sign in (
            (IN_DOMAIN, "up", 1),
            (OUT_OF_DOMAIN, "flat or down", 0),
            (GENERAL, "flat or down", 0),
        ):
            cells = evidence.against_base(run, of_group(group))
            findings += on_mean(Claimed(f"{group} {part}", sign), run.name, group, cells)
    return findings


def _end(evidence: Evidence, run: TrainedRun) -> int:
    return max((entry.record.step for entry in evidence.holdings.entries(run.name, evidence.origin)), default=0)


def long_runs(evidence: Evidence) -> list[TrainedRun]:
    """Whose course is judged: the run asked for, else all on long math thinking of eight epochs
    or more that decay, else any."""
    runs = sorted((run for run in evidence.runs if evidence.concerns(run)), key=by_size)
    paper = [run for run in runs if run.data == COT and (run.epochs or ENOUGH) >= ENOUGH and run.schedule != "constant"]
    return runs if evidence.only else paper or runs


def dip_and_recovery(evidence: Evidence) -> list[Finding]:
    """Scores dip below the base, rise again, and end above it on OOD reasoning.

    The mean over all benchmarks counts, tested at all checkpoints at once (maximum statistic), and so for the rise from
    the lowest. Models below 3 billion parameters count only where there are no others: Sec. 5 says that they do not
    recover. Groups and benchmarks are each tested in the same way, not corrected for their number.
    """
    return shapes(evidence, long_runs(evidence))


def shapes(evidence: Evidence, runs: Iterable[TrainedRun]) -> list[Finding]:
    """Dip and recovery of every run that has a course."""
    found = {run: courses_of(evidence, run, score_course) for run in runs}
    deciding = _deciding(run for run, courses in found.items() if courses)
    findings = []
    for run, courses in found.items():
        if courses:
            findings += _shape(evidence, run, courses, counts=run in deciding)
        else:
            findings += _ends_only(evidence, run)
    return findings


def _deciding(runs: Iterable[TrainedRun]) -> list[TrainedRun]:
    """The capable models or, where there are none, all."""
    there = list(runs)
    return [run for run in there if run.size is None or run.size >= CAPABLE] or there


def _ends_only(evidence: Evidence, run: TrainedRun) -> list[Finding]:
    """What can be said of a run without scores on the way."""
    cells = evidence.against_base(run, of_group(OUT_OF_DOMAIN))
    findings = on_mean(replace(PASS, counts=False), run.name, OUT_OF_DOMAIN, cells)[:1]
    return [nothing(replace(DIP, counts=False), run.name, ALL, NO_COURSE), *findings]


def _shape(evidence: Evidence, run: TrainedRun, courses: dict[Column, Course], counts: bool) -> list[Finding]:
    tall = {column: course for column, course in courses.items() if course.values[0] >= MARGIN}
    parts = [replace(part, counts=counts) for part in (DIP, RISE, PASS)]
    whole = mean_course(list(tall.values()))
    if whole is None:
        floor = f"the base scores below {MARGIN:g} % everywhere: nothing can fall"
        why = "the benchmarks share too few steps" if tall else floor
        return [replace(nothing(part, run.name, ALL, why), status="undecided") for part in parts[:2]]
    findings = _dip(parts[0], parts[1], run.name, ALL, whole)
    cells = evidence.against_base(run, of_group(OUT_OF_DOMAIN))
    findings += on_mean(parts[2], run.name, OUT_OF_DOMAIN, cells)[:1]
    quiet = [replace(part, counts=False) for part in parts]
    for group in (IN_DOMAIN, OUT_OF_DOMAIN, GENERAL):
        course = mean_course([course for column, course in tall.items() if group_of(column.benchmark) == group])
        findings += [] if course is None else _dip(quiet[0], quiet[1], run.name, group, course)
    for column, course in tall.items():
        findings += _dip(quiet[0], quiet[1], run.name, column.title, course)
    return findings


def _dip(dip_part: Claimed, rise_part: Claimed, label: str, scope: str, course: Course) -> list[Finding]:
    candidates, last = course.steps[1:-1], course.steps[-1]
    dip, lowest = dip_of(dip_part, label, scope, course)
    findings, status = [lowest], lowest.status
    if status != "reproduced":
        return [*findings, replace(nothing(rise_part, label, scope, "no dip shown to recover from"), status=status)]
    rise = largest_change(course, candidates, last, -1, at=dip.step)
    words = f"from step {dip.step} to {last}: {in_words(_reversed(rise.change))}; "
    words += f"the end against the base: {in_words(course.change(BASE_STEP, last))}"
    rise_status = extreme_status(rise, MARGIN)
    return [*findings, finding(rise_part, label, scope, _reversed(rise.change), rise_status, words)]


def dip_of(claimed: Claimed, label: str, scope: str, course: Course) -> tuple[Extreme, Finding]:
    """The deepest fall below the base before the last step, and the finding on it."""
    dip = largest_change(course, course.steps[1:-1], BASE_STEP, -1)
    words = f"lowest at step {dip.step}: {in_words(dip.change)}"
    return dip, finding(claimed, label, scope, dip.change, extreme_status(dip, MARGIN), words)


def extreme_status(extreme: Extreme, margin: float) -> Status:
    """Reproduced: the change is there. Not reproduced: at no step is it larger than `margin`."""
    return "reproduced" if extreme.is_there else "not reproduced" if extreme.beyond < margin else "undecided"


def _reversed(found: Difference) -> Difference:
    low, high = (None if end is None else -end for end in (found.high, found.low))
    return replace(found, effect=-found.effect, low=low, high=high)


def dip_outside_math(evidence: Evidence) -> list[Finding]:
    """Where the mean over all benchmarks is lowest, the others have fallen by more than the in-domain ones."""
    findings = []
    found = {run: courses_of(evidence, run, score_course) for run in long_runs(evidence)}
    deciding = _deciding(run for run, courses in found.items() if courses)
    for run, courses in found.items():
        tall = {column: course for column, course in courses.items() if course.values[0] >= MARGIN}
        inside = [course for column, course in tall.items() if group_of(column.benchmark) == IN_DOMAIN]
        outside = [course for column, course in tall.items() if group_of(column.benchmark) != IN_DOMAIN]
        parts, whole = (mean_course(outside), mean_course(inside)), mean_course(list(tall.values()))
        if whole is None or parts[0] is None or parts[1] is None:
            continue
        step = largest_change(whole, whole.steps[1:-1], BASE_STEP, -1).step
        changes = [part.change(BASE_STEP, step) for part in parts if part is not None]
        deeper, claimed = minus(*changes), Claimed("the dip is deeper outside math", -1, counts=run in deciding)
        text = f"at step {step}: {in_words(changes[0])} outside, {in_words(changes[1])} in domain"
        findings.append(finding(claimed, run.name, "all against in-domain", deeper, direction(deeper, -1), text))
    return findings


def length_surge(evidence: Evidence) -> list[Finding]:
    """On the way, responses are longer than the base's, at some checkpoint before the last (maximum statistic)."""
    return _lengths(evidence, Claimed("length surges above the base's", 1))


def length_shrink(evidence: Evidence) -> list[Finding]:
    """The last checkpoint's responses are shorter than the longest on the way (maximum statistic).

    Where only the range over benchmarks is reported, the ranges are shown; they decide nothing.
    """
    claimed = Claimed("length shrinks again until the end", -1)
    return _lengths(evidence, claimed) + reported_shrink(evidence, claimed, long_runs(evidence))


def _lengths(evidence: Evidence, claimed: Claimed) -> list[Finding]:
    findings = []
    for run in long_runs(evidence):
        courses = courses_of(evidence, run, length_course)
        whole = mean_course(list(courses.values()))
        if whole is not None:
            findings.append(_length(claimed, run.name, ALL, whole))
        quiet = replace(claimed, counts=False)
        findings += [_length(quiet, run.name, column.benchmark, one) for column, one in courses.items()]
    return findings


def _length(claimed: Claimed, label: str, scope: str, course: Course) -> Finding:
    candidates, last = course.steps[1:-1], course.steps[-1]
    peak = largest_change(course, candidates, BASE_STEP if claimed.sign > 0 else last, 1)
    found = peak.change if claimed.sign > 0 else _reversed(peak.change)
    status = extreme_status(peak, LENGTH_MARGIN * float(course.values[0]))
    start, top, end = (course.values[course.at(step)] for step in (BASE_STEP, peak.step, last))
    longest = f"longest before the end: {top:,.0f} tokens at step {peak.step}"
    text = f"base {start:,.0f} tokens, {longest}, end {end:,.0f} tokens: {in_words(found, TOKENS)}"
    return finding(claimed, label, scope, found, status, text, TOKENS)
