"""Intervals and comparisons against known answers and, by simulation, against the rates that they state."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from analysis import statistics
from analysis.holdings import Library
from analysis.runs import Entry, ResultFile
from analysis.statistics import Difference, Estimate, count_test, difference, highest, interval, mean, paired, unpaired
from reprokit.records.details import CellDetails, Details, Lengths
from reprokit.records.record import Record, Results

Vector = NDArray[np.float64]
Pair = tuple[Vector, Vector]
SIMULATIONS = 1_000


def answers(
    generator: np.random.Generator, items: int, samples: int, gain: float = 0.0, spread: float = 0.5, size: int = 1
) -> Pair:
    """Means over samples of two checkpoints; ability per cluster of `size` items, `gain` and `spread` in logits."""
    clusters = -(-items // size)
    ability = np.repeat(generator.normal(0.3, 1.2, clusters), size)[:items]
    change = np.repeat(generator.normal(gain, spread, clusters), size)[:items]
    first, second = (1 / (1 + np.exp(-logit)) for logit in (ability, ability + change))
    return generator.binomial(samples, first) / samples, generator.binomial(samples, second) / samples


def true_effect(gain: float, spread: float = 0.5) -> float:
    """The mean difference that `answers` has in the long run."""
    first, second = answers(np.random.default_rng(99), 400_000, 50, gain, spread)
    return float((second - first).mean())


def rates(draw: Callable[[np.random.Generator], Difference], truth: float, simulations: int) -> tuple[float, float]:
    """How often the interval covers the truth, and how often equality is rejected."""
    generator = np.random.default_rng(20)
    found = [draw(generator) for _ in range(simulations)]
    covered = [one.low is not None and one.high is not None and one.low <= truth <= one.high for one in found]
    return float(np.mean(covered)), float(np.mean([one.is_decided for one in found]))


@pytest.mark.parametrize(("items", "gain"), [(100, 0.0), (200, 0.0), (200, 1.0), (500, 0.5)])
def test_interval_of_paired_right_and_wrong_answers_covers_at_its_rate(items: int, gain: float) -> None:
    truth = true_effect(gain)

    def draw(generator: np.random.Generator) -> Difference:
        return paired(*answers(generator, items, 1, gain), clusters=range(items), scale=1.0)

    covered, rejected = rates(draw, truth, SIMULATIONS)
    assert 0.93 <= covered <= 0.97
    if gain == 0.0:
        assert rejected <= 0.05  # McNemar's false positives


@pytest.mark.parametrize(("items", "samples", "size"), [(30, 10, 1), (200, 3, 1), (200, 3, 4), (300, 1, 5)])
def test_clustered_interval_covers_at_its_rate(items: int, samples: int, size: int) -> None:
    generator, names, covered = np.random.default_rng(21), np.arange(items) // size, []
    for _ in range(SIMULATIONS):
        first, second = answers(generator, items, samples, 0.0, 0.8, size)
        sums, sizes = statistics.cluster_sums(second - first, list(names), np.ones(items))
        _, low, high, _ = statistics.clustered_interval(sums, sizes, is_binary=samples == 1)
        covered.append(low <= 0.0 <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_ignoring_clusters_would_be_wrong() -> None:
    generator, covered = np.random.default_rng(22), []
    for _ in range(300):
        first, second = answers(generator, 200, 3, 0.0, 2.0, size=10)
        sums, sizes = statistics.cluster_sums(second - first, range(200), np.ones(200))
        _, low, high, _ = statistics.clustered_interval(sums, sizes, is_binary=False)
        covered.append(low <= 0.0 <= high)
    assert np.mean(covered) < 0.9


def test_permutation_test_keeps_its_level() -> None:
    def draw(generator: np.random.Generator) -> Difference:
        return paired(*answers(generator, 36, 4, 0.0, size=3), clusters=np.arange(36) // 3, scale=1.0)

    _, rejected = rates(draw, 0.0, 500)
    assert 0.02 <= rejected <= 0.07


def changing_answers(generator: np.random.Generator, items: int, differing: float, effect: float) -> Pair:
    """Right and wrong answers, of which a share `differing` differs, more often for the better by `effect`."""
    kind = generator.choice(3, items, p=[(differing + effect) / 2, (differing - effect) / 2, 1 - differing])
    first = np.where(kind == 2, generator.integers(0, 2, items), kind == 1).astype(float)
    return first, np.where(kind == 2, first, kind == 0).astype(float)


def shifted_scores(generator: np.random.Generator, items: int, spread: float, effect: float) -> Pair:
    """Scores of problems that all change, by `effect` in the mean."""
    first = np.round(generator.random(items), 1)
    return first, first + np.round(generator.normal(effect, spread, items), 1)


@pytest.mark.parametrize(("draw", "items", "spread"), [(changing_answers, 400, 0.3), (shifted_scores, 60, 0.4)])
def test_power_at_the_detectable_difference(
    draw: Callable[[np.random.Generator, int, float, float], Pair], items: int, spread: float
) -> None:
    def found(generator: np.random.Generator, effect: float) -> Difference:
        return paired(*draw(generator, items, spread, effect), clusters=range(items), scale=1.0)

    generator, effect = np.random.default_rng(23), 0.1
    for _ in range(3):  # the design depends a little on the effect
        effect = float(np.mean([found(generator, effect).detectable for _ in range(60)]))
    covered, power = rates(lambda drawn: found(drawn, effect), effect, 600)
    assert 0.74 <= power <= 0.86
    assert 0.93 <= covered <= 0.97


def test_so_many_more_items_decide() -> None:
    gain, items = 0.4, 100
    truth, generator = true_effect(gain), np.random.default_rng(24)
    # An undecided comparison whose observed effect is the true one asks for this many.
    drawn = (paired(*answers(generator, items, 1, gain), clusters=range(items), scale=1.0) for _ in itertools.count())
    found = next(one for one in drawn if not one.is_decided and abs(one.effect - truth) < 0.006)
    assert found.more_items is not None
    enough = items + found.more_items
    _, power = rates(lambda draw: paired(*answers(draw, enough, 1, gain), clusters=range(enough), scale=1.0), 0.0, 400)
    assert 0.7 <= power <= 0.9


def test_unpaired_intervals_cover_and_keep_their_level() -> None:
    generator, covered, decided = np.random.default_rng(25), [], []
    for _ in range(SIMULATIONS):
        values = 100 * generator.binomial((400, 250), 0.7) / (400, 250)
        found = unpaired(
            *(statistics.estimate_of(reported(value, n)) for value, n in zip(values, (400, 250), strict=True))
        )
        assert found.low is not None and found.high is not None
        covered.append(found.low <= 0 <= found.high)
        decided.append(found.is_decided)
    assert 0.93 <= np.mean(covered) <= 0.97
    assert [not one for one in decided] == covered  # p-value and interval agree


def test_reported_interval_holds_when_all_samples_of_an_item_are_one() -> None:
    generator, covered = np.random.default_rng(26), []
    for _ in range(SIMULATIONS):
        found = interval(reported(100 * generator.binomial(30, 0.6) / 30, 30, samples=10))
        assert found is not None
        covered.append(found[0] <= 60 <= found[1])
    assert np.mean(covered) >= 0.93


def reported(value: float, items: int | None, unit: str = "percent", samples: int = 3) -> Record:
    """A reported number without an interval."""
    return Record(
        run="r", model="m", step=640, benchmark="MATH500", metric="avg@3", value=value, unit=unit,
        items=items, samples_per_item=samples, origin="reported",
    )  # fmt: skip


def test_interval_is_that_of_the_record_or_a_conservative_one_or_none() -> None:
    measured = reported(50.0, 30)
    measured.interval_low, measured.interval_high = 40.0, 60.0
    assert interval(measured) == (40.0, 60.0, "clustered by problem")
    found = interval(reported(50.0, 100))
    assert found is not None and found[:2] == pytest.approx((40.38, 59.62), abs=0.01)
    assert "conservative" in found[2]
    high = interval(reported(100.0, 817))
    assert high is not None and high[:2] == pytest.approx((99.53, 100.0), abs=0.01)
    assert interval(reported(1.4, 805, unit="reward")) is None
    assert interval(reported(72.8, None)) is None
    assert interval(reported(28_000, 500, unit="tokens")) is None


def test_no_spread_gives_an_effect_and_nothing_else() -> None:
    found = unpaired(Estimate(0.5, None, None, 805, "no spread known"), Estimate(1.4, None, None, 805, ""))
    assert found == Difference(pytest.approx(0.9), None, None, None, "no spread known", 805, None, None)
    assert not found.is_decided


def test_mcnemar_is_exact() -> None:
    first, second = np.zeros(40), np.zeros(40)
    second[:10] = 1
    first[10:12] = 1
    found = paired(first, second, range(40))
    assert found.p_value == pytest.approx(stats.binomtest(2, 12).pvalue)
    assert found.p_value == pytest.approx(0.03857, abs=1e-5)
    assert (found.effect, found.items) == (pytest.approx(20.0), 40)
    assert "McNemar, exact" in found.method and "40 clusters" in found.method
    assert found.more_items is None


def test_items_of_one_cluster_are_not_counted_one_by_one() -> None:
    first, second = np.zeros(40), np.tile([1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], 4)
    alone = paired(first, second, range(40))
    together = paired(first, second, [f"theme {place // 10}" for place in range(40)])
    assert together.p_value == pytest.approx(2 / 2**4)
    assert alone.p_value is not None and alone.p_value < 0.001
    assert "sign flips, exact; 4 clusters" in together.method


def test_sign_flips_are_those_of_all_flips() -> None:
    changes = np.array([0.4, -0.1, 0.3, 0.3, 0.2, -0.25, 0.5, 0.0])
    flips = [abs(float(np.dot(signs, changes))) for signs in itertools.product((1, -1), repeat=8)]
    expected = np.mean(np.array(flips) >= changes.sum() - 1e-12)
    found = paired(np.zeros(8) + 0.5, changes + 0.5, range(8))
    assert found.p_value == pytest.approx(expected)
    assert "exact" in found.method


def test_many_clusters_are_drawn_from_a_seed_and_it_says_so() -> None:
    first, second = answers(np.random.default_rng(1), 60, 3, 0.3)
    statistics._flipped.cache_clear()
    once = paired(first, second, range(60), seed=4)
    statistics._flipped.cache_clear()
    assert paired(first, second, range(60), seed=4) == once
    assert "Monte Carlo" in once.method


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_answers_are_not_certainty(value: float) -> None:
    found = paired(np.full(100, value), np.full(100, value), range(100))
    assert (found.effect, found.p_value, found.more_items) == (0.0, 1.0, None)
    assert found.low is not None and found.low < -1 and found.high is not None and found.high > 1
    assert found.detectable is not None and found.detectable > 2


def test_mean_of_differences_propagates_errors() -> None:
    parts = [statistics.from_interval(effect, effect - 6, effect + 6, "", 100) for effect in (4.0, 8.0, 3.0)]
    found = mean(parts)
    assert found.effect == pytest.approx(5.0)
    assert found.high == pytest.approx(5.0 + 6 / 3**0.5)
    assert found.is_decided and not parts[0].is_decided
    assert found.items == 300
    assert mean(parts[:1]).effect == 4.0


def test_more_items_are_none_where_they_would_not_help() -> None:
    assert statistics.from_interval(0.0, -5, 5, "", 100).more_items is None
    assert statistics.from_interval(9.0, 4, 14, "", 100).more_items is None
    undecided = statistics.from_interval(3.0, -3, 9, "", 100)
    assert undecided.detectable == pytest.approx(2.8 * 6 / 1.96, rel=0.01)
    assert undecided.more_items == pytest.approx(100 * ((2.8 * 2 / 1.96) ** 2 - 1), rel=0.02)


def test_counting_is_the_sign_test_over_groups() -> None:
    assert count_test({str(place): [1.0] for place in range(8)} | {"8": [-1.0]}) == pytest.approx(10 / 256)
    assert count_test({str(place): [1.0, 1.0, 1.0] for place in range(5)}) == pytest.approx(2 / 32)
    assert count_test({"a": [1.0, -1.0], "b": []}) == 1.0


def test_highest_of_one_is_that_one() -> None:
    p_values, reach = highest(np.array([1.5]), np.array([[1.0]]))
    assert p_values[0] == pytest.approx(stats.norm.sf(1.5), abs=0.006)
    assert reach == pytest.approx(1.645, abs=0.03)


def test_highest_agrees_with_dunnett() -> None:
    covariance = 0.5 * (np.eye(7) + 1)
    _, reach = highest(np.zeros(7), covariance)
    assert reach == pytest.approx(2.34, abs=0.03)  # Dunnett (1955), one-sided 5 %, 7 treatments
    p_values, _ = highest(np.full(7, 2.34), covariance)
    assert p_values == pytest.approx(np.full(7, 0.05), abs=0.006)


def test_highest_of_values_without_spread_is_not_a_finding() -> None:
    p_values, _ = highest(np.array([5.0, 0.0]), np.zeros((2, 2)))
    assert p_values == pytest.approx([1.0, 1.0], abs=0.6)
    assert p_values.min() > 0.05


def cell(step: int, values: Vector, digest: str = "d", clusters: dict[str, str] | None = None) -> CellDetails:
    """Details of a cell of MATH500."""
    nothing = Lengths(responses=0, mean_tokens=None)
    return CellDetails(
        step=step, benchmark="math500", metric="pass@1", unit="percent", digest=digest, clusters=clusters or {},
        items={f"i{place}": float(value) for place, value in enumerate(values)},
        finished=nothing, truncated=nothing, unfinished_thinking=0, behaviour={}, made_from="", detectors=1,
    )  # fmt: skip


def measured(step: int, value: float) -> Record:
    """A measured number of MATH500."""
    return Record(
        run="r", model="m", dataset="d", step=step, benchmark="math500", metric="pass@1", value=value, unit="percent",
        items=50, interval_low=value - 10, interval_high=value + 10, origin="measured", protocol="official",
    )  # fmt: skip


def library(records: list[Record], *cells: CellDetails) -> tuple[Library, list[Entry]]:
    """A library of one run with details."""
    made = Library(
        [ResultFile("r.json", "0", Results(run="r", records=records))], {"r": Details(run="r", cells=list(cells))}
    )
    return made, [Entry(record, "r.json") for record in records]


def test_difference_pairs_the_same_problems_only() -> None:
    first, second = np.repeat([1.0, 0.0], 25), np.repeat([1.0, 0.0], (33, 17))
    records = [measured(0, 50.0), measured(640, 66.0)]
    made, entries = library(records, cell(0, first), cell(640, second))
    found = difference(made, *entries)
    assert "paired" in found.method and found.is_decided
    for other in (cell(640, second, digest="other"), cell(640, second[:40])):
        made, entries = library(records, cell(0, first), other)
        found = difference(made, *entries)
        assert "two intervals" in found.method and found.effect == 16.0


def test_difference_weighs_problems_as_the_records_do() -> None:
    first, second = np.repeat([1.0, 0.0], 25), np.repeat([1.0, 0.0], (33, 17))
    cells = [cell(step, values) for step, values in ((0, first), (640, second))]
    for one in cells:
        one.weights = {f"i{place}": 0.0 if place < 5 else 3.0 if place < 33 else 1.0 for place in range(50)}
    made, entries = library([measured(0, 80 * 60 / 101), measured(640, 80 * 84 / 101)], *cells)
    found = difference(made, *entries)
    assert found.effect == pytest.approx(100 * 24 / 101)
    assert "sign flips" in found.method and found.items == 45
    assert found.low is not None and found.high is not None and found.low < found.effect < found.high


def test_weighted_interval_covers_at_its_rate() -> None:
    generator, covered = np.random.default_rng(27), []
    weights = np.array([1.0, 2.0, 3.0] * 80)
    for _ in range(SIMULATIONS):
        first, second = answers(generator, 240, 2, 0.0, 1.0)
        sums, sizes = statistics.cluster_sums(second - first, range(240), weights)
        _, low, high, _ = statistics.clustered_interval(sums, sizes, is_binary=False)
        covered.append(low <= 0.0 <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_difference_knows_clusters_and_never_divides_by_none() -> None:
    values = [np.repeat([1.0, 0.0], 25), np.repeat([1.0, 0.0], (33, 17))]
    for names, words in (
        ({f"i{n}": f"c{n % 5}" for n in range(50)}, "5 clusters"),
        ({f"i{n}": "c" for n in range(50)}, "two intervals"),
    ):
        cells = [cell(step, value, clusters=names) for step, value in zip((0, 640), values, strict=True)]
        made, entries = library([measured(0, 50.0), measured(640, 66.0)], *cells)
        assert words in difference(made, *entries).method
