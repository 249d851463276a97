"""How one quantity goes over the steps of a run, with the covariance that a test of all steps at once needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from analysis.claims.evidence import Evidence, is_points
from analysis.claims.runs import TrainedRun
from analysis.columns import Column
from analysis.holdings import BASE_STEP, Library
from analysis.runs import Entry
from analysis.statistics import (
    LEVEL,
    POWER,
    Difference,
    Matrix,
    Vector,
    Z,
    aligned,
    clustered_covariance,
    from_interval,
    highest,
    interval,
    is_same_problems,
    scale_of,
)

MIN_POINTS = 4  # the base, two checkpoints and the last: fewer are no course


@dataclass(frozen=True)
class Course:
    """Values at ascending `steps`, their covariance, and the degrees of freedom of the latter."""

    steps: tuple[int, ...]
    values: Vector
    covariance: Matrix
    freedom: float
    items: int | None

    def at(self, step: int) -> int:
        """Place of a step."""
        return self.steps.index(step)

    def change(self, earlier: int, later: int) -> Difference:
        """Value at step `later` minus that at step `earlier`, neither of them chosen by its value."""
        weights = np.zeros(len(self.steps))
        weights[self.at(later)] += 1.0
        weights[self.at(earlier)] -= 1.0
        effect = float(weights @ self.values)
        reach = float(stats.t.ppf(1 - LEVEL / 2, self.freedom))
        half = reach * math.sqrt(max(0.0, float(weights @ self.covariance @ weights)))
        return from_interval(effect, effect - half, effect + half, "of two steps", self.items)


@dataclass(frozen=True)
class Extreme:
    """The largest of several changes with its p-value and its interval, corrected for the choice of the step.

    `beyond` is what no change exceeds in the direction looked for (simultaneous 95 % bound, 0 or above).
    """

    step: int
    change: Difference
    beyond: float

    @property
    def is_there(self) -> bool:
        """Whether there is a change in the direction looked for."""
        return self.change.is_decided


def largest_change(
    course: Course, candidates: Sequence[int], reference: int, sign: int, at: int | None = None
) -> Extreme:
    """The largest of `sign` x (value at a candidate - value at `reference`), or that of the candidate `at`.

    The p-value is one-sided; the end of the interval towards 0 is the simultaneous 95 % bound, and excludes 0 where
    p <= 0.05 (but for the draws).
    """
    weights = np.zeros((len(candidates), len(course.steps)))
    for place, step in enumerate(candidates):
        weights[place, course.at(step)] += sign
        weights[place, course.at(reference)] -= sign
    changes, covariance = weights @ course.values, weights @ course.covariance @ weights.T
    errors = np.sqrt(np.clip(np.diag(covariance), 0.0, None))
    p_values, reach = highest(changes, covariance, course.freedom)
    best = int(np.argmax(changes)) if at is None else list(candidates).index(at)
    effect, half, p_value = float(changes[best]), reach * float(errors[best]), float(p_values[best])
    detectable = half + float(stats.norm.ppf(POWER)) * float(errors[best])
    more = None
    if course.items and effect > 0 and p_value > LEVEL:
        more = max(1, math.ceil(course.items * ((detectable / effect) ** 2 - 1)))
    low, high = sorted((sign * (effect - half), sign * (effect + half)))
    method = f"largest of {len(candidates)} steps, corrected for the choice"
    change = Difference(sign * effect, low, high, p_value, method, course.items, detectable, more, float(errors[best]))
    return Extreme(candidates[best], change, max(0.0, float(np.max(changes + reach * errors))))


def _over_steps(evidence: Evidence, run: TrainedRun, column: Column) -> list[tuple[int, Entry | None]]:
    """The base and every step at which the run has a score of this column, each with its record."""
    steps = [BASE_STEP, *evidence.holdings.steps(run.name, evidence.origin, [column])]
    return [(step, evidence.holdings.best(run.name, step, column, evidence.origin)) for step in steps]


def score_course(evidence: Evidence, run: TrainedRun, column: Column) -> Course | None:
    """The scores of a column from the base to the last step; None with too few steps or without a known spread."""
    found = _over_steps(evidence, run, column)
    known = [entry for _, entry in found if entry is not None]
    if found[0][1] is None or len(known) < MIN_POINTS or not is_points(column):
        return None
    if not evidence.are_alike(known):
        return None
    for entry in known:
        evidence.use(entry)
    values = np.array([entry.record.value for entry in known])
    spread = _paired_covariance(evidence.holdings, known) or _separate_covariance(known)
    steps = tuple(step for step, _ in found)
    return None if spread is None else Course(steps, values, *spread, known[0].record.items)


def length_course(evidence: Evidence, run: TrainedRun, column: Column) -> Course | None:
    """Mean response tokens of a benchmark from the base to the last step; None if some are not known.

    The spread of the lengths is not in the records: the largest that a length between 0 and the token limit can have at
    this mean is taken (Bhatia and Davis 2000), for one response per problem. Steps without a length are left out.
    """
    found = _over_steps(evidence, run, column)
    known = [(step, *lengths) for step, entry in found if entry and (lengths := _length(evidence, entry))]
    if not evidence.are_alike([entry for _, entry in found if entry]):
        return None
    if len(known) < MIN_POINTS or known[0][0] != BASE_STEP:
        return None
    shown, values, errors = (tuple(part) for part in zip(*known, strict=True))
    return Course(shown, np.array(values), np.diag(np.square(errors)), math.inf, None)


def _length(evidence: Evidence, entry: Entry) -> tuple[float, float] | None:
    """Mean length and its standard error."""
    record = entry.record
    limit = token_limit(evidence.holdings, entry)
    if record.mean_response_tokens is None or limit is None or not record.items:
        return None
    evidence.use(entry)
    mean = min(record.mean_response_tokens, float(limit))
    # Not 0 where all responses reach the limit.
    return mean, max(1.0, math.sqrt(mean * (limit - mean) / record.items))


def token_limit(library: Library, entry: Entry) -> int | None:
    """How many tokens a response could have, from the provenance of a measured record."""
    made = library.file(entry.file).results.provenance.get(entry.record.provenance or "", {})
    settings = made.get("settings")
    limit = settings.get("max_tokens") if isinstance(settings, dict) else None
    return limit if isinstance(limit, int) and limit > 0 else None


def mean_course(courses: Sequence[Course]) -> Course | None:
    """The mean over benchmarks at the steps that all have, errors propagated; None with too few such steps."""
    if not courses:
        return None
    steps = tuple(sorted(set.intersection(*(set(course.steps) for course in courses))))
    if len(steps) < MIN_POINTS or steps[0] != BASE_STEP:
        return None
    places = [[course.at(step) for step in steps] for course in courses]
    values = np.mean([course.values[place] for course, place in zip(courses, places, strict=True)], axis=0)
    parts = [course.covariance[np.ix_(place, place)] for course, place in zip(courses, places, strict=True)]
    known = [course.items for course in courses if course.items is not None]
    items = sum(known) if len(known) == len(courses) else None
    freedom = min(course.freedom for course in courses)
    return Course(steps, values, np.sum(parts, axis=0) / len(courses) ** 2, freedom, items)


def courses_of(
    evidence: Evidence, run: TrainedRun, make: Callable[[Evidence, TrainedRun, Column], Course | None]
) -> dict[Column, Course]:
    """A course for every column of capability that has one."""
    made = {column: make(evidence, run, column) for column in evidence.columns(run.name)}
    return {column: course for column, course in made.items() if course is not None}


def _paired_covariance(library: Library, entries: Sequence[Entry]) -> tuple[Matrix, float] | None:
    """From the values of single problems, where all steps have those of the same problems."""
    cells = [library.item_details(entry) for entry in entries]
    known = [cell for cell in cells if cell is not None]
    if len(known) < len(cells) or not all(is_same_problems(known[0], cell) for cell in known):
        return None
    values, clusters, weights = aligned(known)
    found = scale_of(entries[0].record) ** 2 * clustered_covariance(np.array(values).T, clusters, weights)
    return _at_least(found, entries), len(set(clusters)) - 1.0


def _at_least(covariance: Matrix, entries: Sequence[Entry]) -> Matrix:
    """With the variance of the interval where all problems have one value, which says that the spread is 0."""
    separate = _separate_covariance(entries)
    flat = np.diag(covariance) <= 0.0
    return covariance if separate is None else covariance + np.diag(np.where(flat, np.diag(separate[0]), 0.0))


def _separate_covariance(entries: Sequence[Entry]) -> tuple[Matrix, float] | None:
    """From the intervals, as if every step had other problems."""
    ends = [interval(entry.record) for entry in entries]
    known = [end for end in ends if end is not None]
    if len(known) < len(ends):
        return None
    return np.diag([((high - low) / (2 * Z)) ** 2 for low, high, _ in known]), math.inf
