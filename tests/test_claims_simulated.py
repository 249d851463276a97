"""The claims on simulated runs whose truth is known: what is there is found, what is not there is not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from analysis.claims import CLAIMS, Verdict, judge
from analysis.claims.course import Course, largest_change
from analysis.claims.optimisation import extreme_status
from analysis.holdings import Library
from analysis.names import IN_DOMAIN, OUT_OF_DOMAIN
from analysis.runs import ResultFile
from analysis.statistics import clustered_covariance
from reprokit.evaluation.statistics import estimate
from reprokit.records.details import CellDetails, Details, Lengths
from reprokit.records.record import Record, Results

Array = NDArray[np.float64]
STEPS = (0, 10, 20, 40, 80, 160, 320, 640)
FLAT = (0.5,) * 8
DIPPING = (0.5, 0.45, 0.35, 0.4, 0.5, 0.6, 0.65, 0.7)
ITEMS = 500
LIMIT = 16384
SIMULATIONS = 1_000


def drawn(generator: np.random.Generator, shares: Sequence[float], difficulty: Array | None = None) -> Array:
    """Items x checkpoints of right (1) and wrong (0) answers, in the mean as `shares`; items differ in difficulty."""
    difficulty = generator.random((ITEMS, 1)) if difficulty is None else difficulty
    own = generator.random((ITEMS, len(shares)))
    same = generator.random((ITEMS, len(shares))) > 0.6
    return (np.where(same, difficulty, own) < np.array(shares)).astype(float)


def course(values: Array, is_paired: bool) -> Course:
    """A course over STEPS, from the single values or, without them, from their means alone."""
    means = 100 * values.mean(axis=0)
    separate = np.diag(means * (100 - means) / len(values))
    covariance = 1e4 * clustered_covariance(values, range(len(values)), np.ones(len(values))) if is_paired else separate
    return Course(STEPS, means, covariance, len(values) - 1.0, len(values))


@pytest.mark.parametrize(("is_paired", "least"), [(True, 0.03), (False, 0.0)])
def test_no_dip_is_found_more_often_than_stated(is_paired: bool, least: float) -> None:
    generator = np.random.default_rng(30)
    there = [
        largest_change(course(drawn(generator, FLAT), is_paired), STEPS[1:-1], 0, -1).is_there
        for _ in range(SIMULATIONS)
    ]
    assert least <= np.mean(there) <= 0.062  # 5 % and the error of 1,000 draws


def test_without_correction_noise_would_dip() -> None:
    generator, dips = np.random.default_rng(31), 0
    for _ in range(150):
        made = course(drawn(generator, FLAT), True)
        singles = [largest_change(made, [step], 0, -1) for step in STEPS[1:-1]]
        dips += any(single.is_there for single in singles)
    assert dips / 150 > 0.12


def test_a_dip_is_found_with_its_step_and_its_depth() -> None:
    generator, there, right, covered = np.random.default_rng(32), [], [], []
    for _ in range(500):
        found = largest_change(course(drawn(generator, DIPPING), True), STEPS[1:-1], 0, -1)
        there.append(found.is_there)
        right.append(found.step == 20)
        assert found.change.low is not None and found.change.high is not None
        covered.append(found.change.low <= -15 <= found.change.high)
    assert np.mean(there) >= 0.95
    assert np.mean(right) >= 0.9
    assert np.mean(covered) >= 0.93


def test_dip_of_detectable_depth_is_found_at_80_percent() -> None:
    generator = np.random.default_rng(33)
    at_once = [largest_change(course(drawn(generator, FLAT), True), STEPS[1:-1], 0, -1) for _ in range(50)]
    depth = float(np.mean([found.change.detectable or 0.0 for found in at_once])) / 100
    shares = [0.5, 0.5, 0.5 - depth, *FLAT[3:]]
    found = [largest_change(course(drawn(generator, shares), True), STEPS[1:-1], 0, -1) for _ in range(500)]
    assert 0.74 <= np.mean([one.is_there for one in found]) <= 0.88


def test_no_dip_is_shown_only_where_a_dip_of_two_points_is_excluded() -> None:
    def status(items: float) -> str:
        values = np.full(8, 50.0)
        made = Course(STEPS, values, np.eye(8) * 2500 / items, np.inf, int(items))
        return extreme_status(largest_change(made, STEPS[1:-1], 0, -1), 2.0)

    assert status(500) == "undecided"
    assert status(50_000) == "not reproduced"


def test_change_of_two_steps_covers_at_its_rate() -> None:
    generator, covered = np.random.default_rng(34), []
    for _ in range(SIMULATIONS):
        change = course(drawn(generator, DIPPING), True).change(0, 640)
        assert change.low is not None and change.high is not None
        covered.append(change.low <= 20 <= change.high)
    assert 0.93 <= np.mean(covered) <= 0.97


Shares = Mapping[str, Sequence[float]]
UNITS = {
    "math500": "avg@1",
    "mmlu_pro": "pass@1",
    "ifeval": "instruction-level strict",
    "hex_phi": "attack success rate",
}
BENCHMARKS = {"math500": "MATH500", "mmlu_pro": "MMLU-Pro", "ifeval": "IFEval", "hex_phi": "HEx-PHI"}


def simulated_run(
    model: str, data: str, shares: Shares, seed: int, lengths: Sequence[float] = (1000.0,) * 8, **settings: Any
) -> tuple[ResultFile, Details]:
    """Results and details of a run of the reduced study; all runs of one benchmark have the same items."""
    trained: dict[str, Any] = {"learning_rate": 5e-5, "epochs": 8.0, "batch_size": 32, "schedule": "cosine"} | settings
    name = f"{model}_{data}_{trained['learning_rate']}_{trained['epochs']:g}_{trained['schedule']}"
    generator, records, cells = np.random.default_rng(seed), [], []
    for benchmark, course_of in shares.items():
        difficulty = np.random.default_rng(list(BENCHMARKS).index(benchmark)).random((ITEMS, 1))
        values = drawn(generator, course_of, difficulty)
        for place, step in enumerate(STEPS[: len(course_of)]):
            found = estimate(list(values[:, place]), [1.0] * ITEMS, range(ITEMS), share=True)
            records.append(
                Record(
                    run=name,
                    model=f"{model}-Base",
                    dataset=data if step else None,
                    **trained,
                    step=step,
                    benchmark=BENCHMARKS[benchmark],
                    metric=UNITS[benchmark],
                    protocol="official",
                    unit="percent",
                    value=100 * found.mean,
                    interval_low=100 * found.low,
                    interval_high=100 * found.high,
                    items=ITEMS,
                    samples_per_item=1,
                    mean_response_tokens=lengths[place],
                    origin="measured",
                    checkpoints="training",
                    provenance="made",
                )  # fmt: skip
            )
            cells.append(details_of(step, benchmark, values[:, place]))
    results = Results(run=name, records=records, provenance={"made": {"settings": {"max_tokens": LIMIT}}})
    return ResultFile(f"{name}.json", "0", results), Details(run=name, cells=cells)


def details_of(step: int, benchmark: str, values: Array) -> CellDetails:
    """The single values of a cell."""
    nothing = Lengths(responses=0, mean_tokens=None)
    return CellDetails(
        step=step, benchmark=BENCHMARKS[benchmark], metric=UNITS[benchmark], unit="percent", digest=benchmark,
        items={f"{place:03d}": float(value) for place, value in enumerate(values)}, finished=nothing,
        truncated=nothing, unfinished_thinking=0, behaviour={}, made_from="", detectors=1,
    )  # fmt: skip


def verdicts(*runs: tuple[ResultFile, Details], has_details: bool = True) -> dict[str, Verdict]:
    """Verdicts on a library of these runs."""
    details = {made.run: made for _, made in runs} if has_details else {}
    return {verdict.claim: verdict for verdict in judge(Library([file for file, _ in runs], details), "measured")}


def shares(math: Sequence[float], mmlu: Sequence[float], ifeval: Sequence[float], asr: Sequence[float]) -> Shares:
    """Shares by benchmark."""
    return {"math500": math, "mmlu_pro": mmlu, "ifeval": ifeval, "hex_phi": asr}


def ending(end: float, base: float = 0.5) -> list[float]:
    """A course that ends elsewhere."""
    return [base] * 4 + [base + (end - base) * part for part in (0.3, 0.6, 0.9, 1.0)]


SURGE = (900.0, 2000.0, 6000.0, 8000.0, 7000.0, 5000.0, 4000.0, 3000.0)
RISING = (9000.0, 1000.0, 1000.0, 1500.0, 2000.0, 3000.0, 4000.0, 6000.0)
SAFE, UNSAFE, LITTLE = (0.1,) * 8, ending(0.5, 0.1), ending(0.15, 0.1)


def study() -> list[tuple[ResultFile, Details]]:
    """The reduced study as the paper would have it."""
    lower = [0.5, 0.4, 0.3, 0.35, 0.4, 0.5, 0.55, 0.55]
    cot = shares(DIPPING, DIPPING, lower, UNSAFE)
    small = shares((0.3, 0.25, 0.15, 0.2, 0.25, 0.3, 0.3, 0.28), ending(0.4, 0.3), (0.4,) * 7 + (0.34,), UNSAFE)
    one = {"epochs": 1.0}
    return [
        simulated_run("Qwen3-4B", "Math-CoT-2.5k", cot, 11, SURGE),
        simulated_run("Qwen3-4B", "Math-NoCoT-2.5k", shares(FLAT, FLAT, ending(0.7), LITTLE), 2),
        simulated_run("Qwen3-4B", "NuminaMath-2.5k", shares(ending(0.4), ending(0.38), ending(0.35), SAFE), 3),
        simulated_run("Qwen3-1.7B", "Math-CoT-2.5k", small, 4, SURGE),
        simulated_run("Qwen3-4B", "Countdown-CoT-2.5k", shares(ending(0.65), FLAT, FLAT, SAFE), 5),
        simulated_run("Qwen3-4B", "Math-CoT-20k", shares(ending(0.55), ending(0.5), ending(0.45), SAFE), 6, **one),
        simulated_run("Qwen3-4B", "DeepSeek-R1-2.5k", cot, 7, SURGE),
    ]


@pytest.fixture(scope="module")
def judged() -> dict[str, Verdict]:
    """The verdicts on the simulated study."""
    return verdicts(*study())


def test_a_study_that_is_as_the_paper_says_is_reproduced(judged: dict[str, Verdict]) -> None:
    statuses = {claim: verdict.status for claim, verdict in judged.items()}
    for claim in (
        *("dip_and_recovery", "length_surge", "length_shrink", "repeated_exposure", "data_quality"),
        *("poor_data_hardly_recovers", "other_teacher", "capability_order", "capability_gains", "asymmetry"),
    ):
        assert statuses[claim] == "reproduced", judged[claim].detail
    assert statuses["over_fitting"] == statuses["other_family"] == statuses["one_epoch"] == "no data"
    assert statuses["structure"] == "undecided"  # neither AlpacaEval nor TruthfulQA was measured
    tested = [one.status for one in judged["structure"].findings if one.counts]
    assert tested == ["reproduced", "reproduced", "no data", "no data"]
    assert "paired" not in judged["dip_and_recovery"].detail  # words for readers, not methods


def test_the_dip_is_where_it_was_put(judged: dict[str, Verdict]) -> None:
    dips = [one for one in judged["dip_and_recovery"].findings if one.part.startswith("dip") and "4B" in one.subject]
    for scope in (IN_DOMAIN, OUT_OF_DOMAIN, "IFEval"):
        (found,) = [one for one in dips if one.scope == scope]
        assert found.status == "reproduced" and "step 20" in found.text
        assert found.effect == pytest.approx(-20 if scope == "IFEval" else -15, abs=6)  # two standard errors


def test_the_opposite_is_not_reproduced() -> None:
    rising = ending(0.8)
    found = verdicts(
        simulated_run("Qwen3-4B", "Math-CoT-2.5k", shares(rising, ending(0.4), ending(0.6), LITTLE), 1, RISING),
        simulated_run("Qwen3-4B", "Math-NoCoT-2.5k", shares(ending(0.9), ending(0.8), ending(0.4), UNSAFE), 2),
        simulated_run("Qwen3-4B", "NuminaMath-2.5k", shares(ending(0.9), ending(0.8), ending(0.9), SAFE), 3),
    )
    for claim in ("data_quality", "structure", "asymmetry", "length_surge", "length_shrink"):
        assert found[claim].status == "not reproduced", claim


def test_nothing_happening_is_not_reproduced_or_undecided() -> None:
    flat = shares(FLAT, FLAT, FLAT, SAFE)
    names = ("Math-CoT-2.5k", "Math-NoCoT-2.5k", "NuminaMath-2.5k")
    runs = [simulated_run("Qwen3-4B", data, flat, seed) for seed, data in enumerate(names)]
    for has_details in (True, False):
        found = verdicts(*runs, has_details=has_details)
        for claim in ("dip_and_recovery", "length_surge", "length_shrink", "data_quality", "structure", "asymmetry"):
            assert found[claim].status in ("not reproduced", "undecided"), (claim, found[claim].detail)


def test_claims_of_two_runs_are_found_falsely_at_their_rate_only() -> None:
    (claim,) = [claim for claim in CLAIMS if claim.id == "data_quality"]

    def wrong(seed: int) -> bool:
        flat = {"math500": FLAT[:2], "mmlu_pro": FLAT[:2], "ifeval": FLAT[:2]}
        names = ("Math-CoT", "NuminaMath")
        runs = [simulated_run("Qwen3-4B", data, flat, 2 * seed + place) for place, data in enumerate(names)]
        library = Library([file for file, _ in runs], {made.run: made for _, made in runs})
        (verdict,) = judge(library, "measured", claims=[claim])
        return next(one for one in verdict.findings if one.counts).status == "reproduced"

    assert sum(wrong(seed) for seed in range(200)) <= 10  # 2.5 % on this side: more than 10 of 200 has a chance of 1 %


def test_one_epoch_up_in_domain_and_not_elsewhere() -> None:
    def after(math: float, rest: float) -> str:
        ends = {"math500": math, "mmlu_pro": rest, "ifeval": rest}
        courses = {name: (*FLAT[:4], end, *FLAT[5:]) for name, end in ends.items()}
        made = simulated_run("Qwen3-4B", "Math-CoT-2.5k", courses, 8, epochs=1.0)
        return verdicts(_until(made, 80))["one_epoch"].status

    assert after(0.7, 0.4) == "reproduced"
    assert after(0.7, 0.7) == "not reproduced"
    assert after(0.3, 0.3) == "not reproduced"


def _until(made: tuple[ResultFile, Details], step: int) -> tuple[ResultFile, Details]:
    file, details = made
    results = file.results
    kept = Results(
        run=results.run, records=[one for one in results.records if one.step <= step], provenance=results.provenance
    )
    return ResultFile(file.name, file.sha256, kept), details


def test_over_fitting_only_under_the_aggressive_schedule() -> None:
    fallen = [0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.55, 0.5]
    long = [1000.0, 5000.0, 8000.0, 4000.0, 2500.0, 3000.0, 5000.0, 6000.0]
    mild: Callable[..., Any] = lambda seed, **more: simulated_run(  # noqa: E731
        "Qwen3-4B", "Math-CoT-2.5k", {"math500": ending(0.8), "mmlu_pro": ending(0.8)}, seed, epochs=16.0, **more
    )
    hard = simulated_run(
        "Qwen3-4B", "Math-CoT-2.5k", {"math500": fallen, "mmlu_pro": fallen}, 3, long, epochs=16.0, learning_rate=1e-4,
        schedule="constant",
    )  # fmt: skip
    assert verdicts(mild(1), mild(2, schedule="constant"), hard)["over_fitting"].status == "reproduced"
    assert verdicts(mild(1), mild(2, schedule="constant"))["over_fitting"].status == "no data"
    worse = simulated_run(
        "Qwen3-4B", "Math-CoT-2.5k", {"math500": ending(0.2), "mmlu_pro": ending(0.2)}, 4, epochs=16.0
    )
    assert verdicts(worse, hard)["over_fitting"].status == "not reproduced"


def test_more_rows_seen_several_times_are_not_one_pass() -> None:
    flat = shares(FLAT, FLAT, FLAT, SAFE)
    runs = [simulated_run("Qwen3-4B", data, flat, seed) for seed, data in enumerate(("Math-CoT-2.5k", "Math-CoT-20k"))]
    assert verdicts(*runs)["repeated_exposure"].status == "no data"


def test_lengths_of_few_responses_decide_nothing() -> None:
    flat = shares(FLAT, FLAT, FLAT, SAFE)
    a_little = (1000.0, 1100.0, 1200.0, 1250.0, 1200.0, 1100.0, 1050.0, 1000.0)
    found = verdicts(simulated_run("Qwen3-4B", "Math-CoT-2.5k", flat, 1, a_little))
    assert found["length_surge"].status == found["length_shrink"].status == "undecided"


def test_pairing_by_problem_detects_smaller_differences_than_intervals_alone() -> None:
    runs = study()
    paired = {one.part: one for one in verdicts(*runs)["structure"].findings}
    alone = {one.part: one for one in verdicts(*runs, has_details=False)["structure"].findings}
    assert paired.keys() == alone.keys()
    for part, one in paired.items():
        assert one.effect == pytest.approx(alone[part].effect)
        assert (one.detectable or 0.0) < (alone[part].detectable or 1e-9) or one.status == "no data"


def test_published_checkpoints_give_way_to_an_own_training() -> None:
    own = simulated_run("Qwen3-4B", "Math-CoT-2.5k", shares(DIPPING, DIPPING, DIPPING, SAFE), 1)
    other = simulated_run("Qwen3-4B", "Math-CoT-2.5k", shares(FLAT, FLAT, FLAT, SAFE), 2)
    for record in other[0].results.records:
        record.run, record.checkpoints = "published", "published"
    other[0].results.run = "published"
    library = Library([own[0], other[0]], {own[1].run: own[1]})
    found = {verdict.claim: verdict for verdict in judge(library, "measured")}
    assert {one.subject for one in found["dip_and_recovery"].findings} == {own[0].results.run}
    asked = {verdict.claim: verdict for verdict in judge(library, "measured", "published")}
    assert {one.subject for one in asked["dip_and_recovery"].findings} == {"published"}
