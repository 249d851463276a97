"""Intervals and comparisons of records, clustered by problem; every claim and table takes them from here.

Measured records carry their interval. A reported number has none: it gets the widest that its number of items allows,
as if all samples of an item were one. Comparisons are two-sided at 5 %, plans are for 80 % power.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import combinations
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.holdings import Library
from analysis.runs import Entry
from reprokit.records.details import CellDetails
from reprokit.records.record import Record

LEVEL, POWER = 0.05, 0.8
RESAMPLES = 9_999  # of a permutation test that is too large to be exact
Z = float(stats.norm.ppf(1 - LEVEL / 2))
CONSERVATIVE = "conservative, from the number of items alone"
DRAWS = 20_000  # of a maximum of correlated values

Vector: TypeAlias = NDArray[np.float64]
Matrix: TypeAlias = NDArray[np.float64]
Values: TypeAlias = Vector | Sequence[float]


@dataclass(frozen=True)
class Difference:
    """Second minus first, in percentage points (or in the unit of a reward).

    Args:
        low: lower end of the 95 % interval; None, as `high` and `p_value`, where no spread is known.
        p_value: two-sided; equality is rejected at 0.05.
        items: problems of each of the two; of several benchmarks together their sum.
        detectable: the smallest difference that this design finds with 80 % power.
        more_items: how many more problems of each would decide an effect as large as this; None where it is decided
            already, where it is 0, or where nothing can be said.
        error: standard error of the effect.
        problems: digest of the problems of a paired comparison, None for others.
        shares: what each cluster of problems adds to the error; the shares of two comparisons on the same problems
            tell how these go together.
    """

    effect: float
    low: float | None
    high: float | None
    p_value: float | None
    method: str
    items: int | None
    detectable: float | None
    more_items: int | None
    error: float | None = None
    problems: str | None = field(default=None, compare=False, repr=False)
    shares: Mapping[Hashable, float] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_decided(self) -> bool:
        """Whether equality is rejected."""
        return self.p_value is not None and self.p_value <= LEVEL


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval; no interval where no spread is known. `how` says where the interval is from."""

    value: float
    low: float | None
    high: float | None
    items: int | None
    how: str


def interval(record: Record) -> tuple[float, float, str] | None:
    """The 95 % interval of a record and how it was made, in the unit of the record.

    That of the record itself, else, for a share of a known number of items, Wilson's of one sample per item. None
    where no spread is known: lengths, rewards without an interval, unknown numbers of items.
    """
    if record.interval_low is not None and record.interval_high is not None:
        return record.interval_low, record.interval_high, "clustered by problem"
    if record.unit != "percent" or not record.items or not 0 <= record.value <= 100:
        return None
    from statsmodels.stats.proportion import proportion_confint  # takes a second to import

    low, high = proportion_confint(record.value / 100 * record.items, record.items, method="wilson")
    return 100 * float(low), 100 * float(high), CONSERVATIVE


def estimate_of(record: Record) -> Estimate:
    """A record as an estimate."""
    found = interval(record)
    low, high, how = found or (None, None, "no spread known")
    return Estimate(record.value, low, high, record.items, how)


def difference(library: Library, a: Entry, b: Entry) -> Difference:
    """`b` minus `a`: paired by problem where both have values of the same problems, else from the two intervals."""
    first, second = library.item_details(a), library.item_details(b)
    if first is None or second is None or not is_same_problems(first, second):
        return unpaired(estimate_of(a.record), estimate_of(b.record))
    (values_a, values_b), clusters, weights = aligned((first, second))
    found = paired(values_a, values_b, clusters, scale_of(a.record), weights=weights)
    return replace(found, problems=first.digest)


def aligned(cells: Sequence[CellDetails]) -> tuple[list[Vector], list[str], Vector]:
    """Values of the same problems in several cells, the cluster and the weight of each; problems sorted by name.

    Problems of weight 0 are left out; the mean weight is 1.
    """
    names = [name for name in sorted(cells[0].items) if cells[0].weights.get(name, 1.0) > 0]
    weights = np.array([cells[0].weights.get(name, 1.0) for name in names])
    values = [np.array([cell.items[name] for name in names]) for cell in cells]
    return values, [cells[0].clusters.get(name, name) for name in names], weights / weights.mean() if names else weights


def scale_of(record: Record) -> float:
    """What the values of single problems are multiplied with to be in the unit of the record."""
    return 100.0 if record.unit == "percent" else 1.0


def is_same_problems(first: CellDetails, second: CellDetails) -> bool:
    """Whether the values of two cells belong together problem by problem."""
    same = (first.digest, first.metric, first.unit) == (second.digest, second.metric, second.unit)
    return same and first.items.keys() == second.items.keys() and len(set(aligned((first,))[1])) > 1


def paired(
    values_a: Values,
    values_b: Values,
    clusters: Sequence[Hashable],
    scale: float = 100.0,
    seed: int = 0,
    weights: Values | None = None,
) -> Difference:
    """`b` minus `a` on the same problems, one value of each per problem, at least two clusters of problems.

    Exact McNemar where every value is 0 or 1 and every problem its own cluster, else sign flips of whole clusters:
    exact where they are few, else by `RESAMPLES` draws from `seed`. The interval is t with clusters - 1 degrees of
    freedom; for 0/1 values two problems are added that speak for either side (Bonett and Price 2012), without which it
    would be too narrow where few problems differ.

    Args:
        scale: of the result: 100 turns shares into percentage points.
        weights: of the problems, 1 in the mean; without them, or if all are 1, the test may be McNemar's.
    """
    a, b = np.asarray(values_a, dtype=float), np.asarray(values_b, dtype=float)
    weight = np.ones(len(a)) if weights is None else np.asarray(weights, dtype=float)
    sums, sizes = cluster_sums(b - a, clusters, weight)
    is_binary = bool(np.isin(a, (0, 1)).all() and np.isin(b, (0, 1)).all() and np.allclose(weight, 1))
    if is_binary and len(sums) == len(a):
        p_value, test = _mcnemar(int((b > a).sum()), int((b < a).sum())), "McNemar, exact"
    else:
        p_value, test = _sign_flips(sums, seed)
    effect, low, high, error = clustered_interval(sums, sizes, is_binary)
    if scale == 100.0:  # shares differ by all at most
        low, high = max(low, -1.0), min(high, 1.0)
    method = f"paired by problem: {test}; {len(sums)} clusters"
    found = Difference(scale * effect, scale * low, scale * high, p_value, method, len(a), None, None, scale * error)
    shares = scale * (sums - sizes * effect) / sizes.sum() * math.sqrt(len(sums) / (len(sums) - 1))
    return replace(_planned(found, len(sums) - 1), shares=dict(zip(dict.fromkeys(clusters), shares, strict=True)))


def clustered_interval(sums: Vector, sizes: Vector, is_binary: bool) -> tuple[float, float, float, float]:
    """Mean of values, both ends of its 95 % interval, and its standard error, from sums and sizes of clusters.

    Args:
        is_binary: whether the values are differences of two that are 0 or 1.
    """
    effect = float(sums.sum() / sizes.sum())
    centre, error = effect, _clustered_error(sums, sizes)
    if is_binary or error == 0.0:  # equal values at all problems do not mean that no problem could differ
        more, ones = np.append(sums, [1.0, -1.0]), np.append(sizes, [1.0, 1.0])
        centre, error = float(more.sum() / ones.sum()), _clustered_error(more, ones)
    half = float(stats.t.ppf(1 - LEVEL / 2, len(sums) - 1)) * error
    return effect, min(centre - half, effect), max(centre + half, effect), error


def unpaired(a: Estimate, b: Estimate) -> Difference:
    """`b` minus `a` from their two intervals (Newcombe's square and add), as if their problems were others.

    Where the problems are the same, this is wider than needed. No interval and no p-value where one has none.
    """
    effect = b.value - a.value
    items = None if a.items is None or b.items is None else min(a.items, b.items)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Difference(effect, None, None, None, "no spread known", items, None, None)
    low = effect - math.hypot(b.value - b.low, a.high - a.value)
    high = effect + math.hypot(b.high - b.value, a.value - a.low)
    how = " and ".join(dict.fromkeys((a.how, b.how)))
    return from_interval(effect, low, high, f"from the two intervals: {how}", items)


def from_interval(effect: float, low: float, high: float, method: str, items: int | None) -> Difference:
    """A difference whose 95 % interval is known; its p-value agrees with the interval on what is decided."""
    towards_zero = (effect - low if effect > 0 else high - effect) / Z
    p_value = 1.0 if towards_zero <= 0 else float(2 * stats.norm.sf(abs(effect) / towards_zero))
    return _planned(Difference(effect, low, high, p_value, method, items, None, None, (high - low) / (2 * Z)))


def mean(differences: Sequence[Difference]) -> Difference:
    """The mean of differences, with propagated errors; those without a spread must be left out before.

    Differences on the same problems go together as their values do; others are taken as independent. Widths count, not
    standard errors, so that few problems stay few.
    """
    if len(differences) == 1:
        return differences[0]
    effect = float(np.mean([found.effect for found in differences]))
    spreads = [((found.high or 0.0) - (found.low or 0.0)) / (2 * Z) for found in differences]
    both = sum(_covariance(*pair) for pair in combinations(differences, 2))
    error = math.sqrt(max(0.0, sum(spread**2 for spread in spreads) + 2 * both)) / len(differences)
    known = [found.items for found in differences if found.items is not None]
    items = sum(known) if len(known) == len(differences) else None
    method = f"mean of {len(differences)}, errors propagated"
    return from_interval(effect, effect - Z * error, effect + Z * error, method, items)


def _covariance(first: Difference, second: Difference) -> float:
    if first.problems is None or first.problems != second.problems:
        return 0.0
    return math.fsum(share * second.shares.get(name, 0.0) for name, share in first.shares.items())


def count_test(signs: Mapping[str, Sequence[float]]) -> float:
    """Two-sided p-value of signs (+1, 0, -1) that are grouped: the signs of one group stand or fall together.

    Exact for up to 13 groups (sign flips of whole groups); with one sign per group it is the sign test.
    """
    return _sign_flips(np.array([sum(found) for _, found in sorted(signs.items())], dtype=float), 0)[0]


def highest(values: Vector, covariance: Matrix, freedom: float = math.inf) -> tuple[Vector, float]:
    """Whether any of several correlated values is above 0: one-sided p-values, corrected for taking the highest.

    The maximum of the standardised values is compared with that of a normal (or t) vector of the same correlations,
    as in Dunnett's many-to-one test, by seeded draws.

    Returns:
        p-value of each, and how many standard errors a simultaneous one-sided 95 % bound lies below a value.
    """
    errors = np.sqrt(np.diag(covariance))
    scaled = np.divide(
        covariance, np.outer(errors, errors), out=np.eye(len(values)), where=np.outer(errors, errors) > 0
    )
    weights, axes = np.linalg.eigh(scaled)
    root = axes * np.sqrt(np.clip(weights, 0, None)) @ axes.T  # symmetric: the same whatever the signs of the axes
    maxima = np.max(_normal_draws(len(values)) @ root, axis=1)
    if math.isfinite(freedom):
        maxima = maxima / np.sqrt(np.random.default_rng(1).chisquare(freedom, DRAWS) / freedom)
    z = np.divide(values, errors, out=np.zeros_like(values), where=errors > 0)
    return np.array([(1 + np.sum(maxima >= one)) / (DRAWS + 1) for one in z]), float(np.quantile(maxima, 1 - LEVEL))


@lru_cache(maxsize=16)
def _normal_draws(size: int) -> Matrix:
    return np.random.default_rng(0).standard_normal((DRAWS, size))


def cluster_sums(values: Vector, clusters: Sequence[Hashable], weights: Vector) -> tuple[Vector, Vector]:
    """Weighted sum of the values of each cluster and sum of its weights, in the order in which they first come.

    Args:
        values: one per problem, or one row.
    """
    places = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    where = [places[name] for name in clusters]
    sums = np.zeros((len(places), *values.shape[1:]))
    np.add.at(sums, where, (values.T * weights).T)
    return sums, np.bincount(where, weights).astype(float)


def clustered_covariance(values: Matrix, clusters: Sequence[Hashable], weights: Vector) -> Matrix:
    """Covariance of the weighted means of the columns of `values` (problems x columns), clustered by problem."""
    means = weights @ values / weights.sum()
    sums, sizes = cluster_sums(values - means, clusters, weights)
    count = len(sizes)
    return np.asarray(sums.T @ sums * count / (count - 1) / sizes.sum() ** 2)


def _clustered_error(sums: Vector, sizes: Vector) -> float:
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    count = len(sums)
    return float(math.sqrt(float(residuals @ residuals) * count / (count - 1)) / sizes.sum())


def _mcnemar(better: int, worse: int) -> float:
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def _sign_flips(sums: Vector, seed: int) -> tuple[float, str]:
    """Two-sided p-value of the sum of `sums` under flips of their signs, and the name of the test."""
    other = sums[sums != 0]  # a flip changes nothing at the others
    if len(other) < 2:
        return 1.0, "sign flips, exact"
    is_exact = 2 ** len(other) <= RESAMPLES
    return _flipped(other.tobytes(), seed), f"sign flips, {'exact' if is_exact else f'{RESAMPLES} draws (Monte Carlo)'}"


@lru_cache(maxsize=4096)  # several claims compare the same pair
def _flipped(sums: bytes, seed: int) -> float:
    values = np.frombuffer(sums)
    if 2 ** len(values) <= RESAMPLES:
        found = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=RESAMPLES)
        return float(found.pvalue)
    generator = np.random.default_rng(seed)
    _, first, counts = np.unique(np.round(np.abs(values), 9), return_index=True, return_counts=True)

    def flips(size: tuple[int, int]) -> Matrix:
        # Of clusters with the same difference only the number that is flipped matters.
        shape, is_single = (*size, len(counts)), counts.max() == 1  # bits are drawn much faster
        kept = generator.integers(2, size=shape, dtype=np.int8) if is_single else generator.binomial(counts, 0.5, shape)
        return np.asarray((2 * kept - counts) @ np.abs(values[first]))

    drawn = stats.monte_carlo_test([values.sum()], flips, np.sum, vectorized=True, n_resamples=RESAMPLES)
    return float(drawn.pvalue)


def _planned(found: Difference, freedom: float = math.inf) -> Difference:
    """With the smallest difference that 80 % power finds, and how many more items would decide this one."""
    assert found.error is not None
    reach = float(stats.t.ppf(1 - LEVEL / 2, freedom) + stats.t.ppf(POWER, freedom)) * found.error
    more = None
    if found.items and found.effect != 0 and not found.is_decided:
        more = max(1, math.ceil(found.items * ((reach / found.effect) ** 2 - 1)))
    return replace(found, detectable=reach, more_items=more)
