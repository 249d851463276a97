"""What must not be compared, judged or counted as if it were equal: other settings, unfinished runs, few problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from analysis.claims import judge
from analysis.claims.evidence import Cells
from analysis.claims.findings import Claimed, on_mean, on_most
from analysis.claims.runs import trained_runs
from analysis.columns import ALPACA, NINE_COLUMNS
from analysis.holdings import Library
from analysis.runs import ResultFile
from analysis.statistics import from_interval, mean, paired
from reprokit.records.details import Details
from reprokit.records.record import MissingCell
from tests.test_claims_simulated import DIPPING, FLAT, SAFE, STEPS, SURGE, ending, shares, simulated_run, verdicts

Made = tuple[ResultFile, Details]
LIKE = Claimed("part", 1)


def cot(seed: int = 1, **settings: Any) -> Made:
    """A run on long thinking that dips, recovers and gains."""
    return simulated_run("Qwen3-4B", "Math-CoT-2.5k", shares(DIPPING, DIPPING, DIPPING, SAFE), seed, SURGE, **settings)


def numina(seed: int = 2) -> Made:
    """A run on solutions by people that falls."""
    return simulated_run("Qwen3-4B", "NuminaMath-2.5k", shares(ending(0.35), ending(0.35), ending(0.35), SAFE), seed)


def evaluated(made: Made, steps: Sequence[int] = STEPS, **facts: Any) -> Made:
    """The same run whose numbers at these steps were evaluated otherwise."""
    results = made[0].results
    records = [
        msgspec.structs.replace(one, provenance="other") if one.step in steps else one for one in results.records
    ]
    settings = results.provenance["made"]["settings"]
    other = {**results.provenance, "other": {"settings": settings, **facts}}
    changed = msgspec.structs.replace(results, records=records, provenance=other)
    return ResultFile(made[0].name, "0", changed), made[1]


def without(made: Made, steps: Sequence[int], benchmarks: Sequence[str] = ()) -> Made:
    """The same run that lacks these results, all of those steps or those of these benchmarks, and says so."""
    results = made[0].results
    gone = [one for one in results.records if one.step in steps and (not benchmarks or one.benchmark in benchmarks)]
    missing = [MissingCell(step=one.step, benchmark=one.benchmark) for one in gone]
    kept = [one for one in results.records if one not in gone]
    return ResultFile(made[0].name, "0", msgspec.structs.replace(results, records=kept, missing=missing)), made[1]


def test_runs_that_were_evaluated_differently_are_not_compared() -> None:
    assert verdicts(cot(), numina())["data_quality"].status == "reproduced"
    for facts in ({"settings": {"max_tokens": 16384, "temperature": 1.0}}, {"harness": "lm-eval"}, {"scorer": 2}):
        found = verdicts(cot(), evaluated(numina(), **facts))["data_quality"]
        (name,) = facts
        assert not any(one.part == "Math-CoT above NuminaMath" for one in found.findings if one.effect is not None)
        assert "Left out, for they were evaluated differently: " in found.detail and f"({name}" in found.detail


def test_another_seed_and_more_samples_are_compared() -> None:
    settings = {"max_tokens": 16384, "seed": 7, "samples": 4}
    found = verdicts(evaluated(cot(), settings=settings), numina())["data_quality"]
    assert found.status == "reproduced" and "Left out" not in found.detail


def test_a_course_of_unlike_evaluations_is_no_course() -> None:
    found = verdicts(evaluated(cot(), STEPS[3:], settings={"max_tokens": 200}))
    assert {found[claim].status for claim in ("dip_and_recovery", "length_surge", "length_shrink")} == {"no data"}
    assert "evaluated differently: MATH500 of " in found["dip_and_recovery"].detail
    assert "settings.max tokens 16384 / 200" in found["length_surge"].detail


def test_a_run_that_is_not_finished_is_not_judged() -> None:
    assert verdicts(cot())["dip_and_recovery"].status == "reproduced"
    found = verdicts(without(cot(), [640]))
    for claim in ("dip_and_recovery", "length_surge", "length_shrink"):
        assert found[claim].status == "undecided", claim
        assert "Not judged yet: Qwen3-4B" in found[claim].detail and "step 640 is missing" in found[claim].detail


def test_two_runs_are_not_compared_before_their_end() -> None:
    for late in (without(numina(), STEPS[3:]), _cut(numina(), 20)):  # the second does not know what it lacks
        verdict = verdicts(cot(), late)["data_quality"]
        assert verdict.status == "undecided" and "Not judged yet" in verdict.detail


def _cut(made: Made, last: int) -> Made:
    results = made[0].results
    kept = [one for one in results.records if one.step <= last]
    return ResultFile(made[0].name, "0", msgspec.structs.replace(results, records=kept)), made[1]


def test_only_is_not_judged_without_others() -> None:
    fallen = [0.5, 0.5, 0.6, 0.7, 0.8, 0.7, 0.55, 0.5]
    settings: dict[str, Any] = {"epochs": 16.0, "learning_rate": 1e-4, "schedule": "constant"}
    rising = (1000.0, 5000.0, 8000.0, 4000.0, 2500.0, 3000.0, 5000.0, 6000.0)
    hard = simulated_run("Qwen3-4B", "Math-CoT-2.5k", shares(fallen, fallen, fallen, SAFE), 3, rising, **settings)
    verdict = verdicts(hard)["over_fitting"]
    assert [one.status for one in verdict.findings if one.counts] == ["reproduced"] * 3 + ["no data"]
    assert verdict.status == "undecided"


def test_missing_benchmarks_are_named_and_most_of_the_last_step_is_needed() -> None:
    one = verdicts(cot(), without(numina(), [640], ["IFEval"]))["data_quality"]
    assert one.status == "reproduced" and "lacks 1 of its results (IFEval)." in one.detail
    most = verdicts(cot(), without(numina(), [640], ["IFEval", "MATH500", "HEx-PHI"]))["data_quality"]
    assert most.status == "undecided" and "lacks most benchmarks at step 640" in most.detail


def test_stand_ins_under_the_papers_names_are_noted() -> None:
    small, papers = cot(), cot(5)
    for record in papers[0].results.records:
        record.origin, record.items = "reported", 817
    library = Library([small[0], ResultFile("paper.json", "0", papers[0].results)], {})
    found = {one.claim: one for one in judge(library, "measured")}["dip_and_recovery"]
    assert "Not on the paper's number of problems: IFEval 500 of 817, MATH500 500 of 817" in found.detail
    assert "number of problems" not in verdicts(small)["dip_and_recovery"].detail


def test_runs_that_the_paper_does_not_have_are_noted() -> None:
    note = "None of these runs is one of the paper's"
    own = cot()
    assert note in verdicts(own)["dip_and_recovery"].detail
    for record in own[0].results.records:
        record.run = "Qwen3-4B_Math-CoT-20k_lr5e-5_ep8_bs256"
    own[0].results.run = own[0].results.records[0].run
    found = {one.claim: one for one in judge(Library([own[0]]), "measured")}["dip_and_recovery"]
    assert found.findings and note not in found.detail


def test_published_checkpoints_beside_own_ones_are_noted() -> None:
    other = numina()
    for record in other[0].results.records:
        record.checkpoints = "published"
    assert "published ones, others were trained here" in verdicts(cot(), other)["data_quality"].detail


def cells_of(effects: Sequence[float], half: float) -> Cells:
    """One model's differences on the paper's benchmarks."""
    found = {
        column: from_interval(one, one - half, one + half, "", 100)
        for column, one in zip(NINE_COLUMNS, effects, strict=False)
    }
    return {("M", column): one for column, one in found.items()}


def test_many_small_gains_do_not_outweigh_a_large_loss() -> None:
    assert on_most(LIKE, "M", "all", cells_of([1.0] * 6, 5.0))[0].status == "reproduced"
    found = on_most(LIKE, "M", "all", cells_of([0.2, -30.0, *[0.2] * 7], 5.0))[0]
    assert found.status == "undecided" and "8 of 9" in found.text and "by the mean alone not reproduced" in found.text


def test_one_benchmark_says_nothing_about_most() -> None:
    assert on_most(LIKE, "M", "all", cells_of([9.0, 9.0], 1.0))[0].status == "reproduced"
    assert on_most(LIKE, "M", "all", cells_of([9.0], 1.0))[0].status == "undecided"
    assert on_most(LIKE, "M", "all", cells_of([-9.0], 1.0))[0].status == "not reproduced"


@pytest.mark.parametrize(("half", "status"), [(1.0, "undecided"), (0.05, "not reproduced")])
def test_rewards_have_a_margin_of_their_own(half: float, status: str) -> None:
    cells = {("M", ALPACA): from_interval(0.02, 0.02 - half, 0.02 + half, "", 805)}
    assert {one.status for one in on_mean(LIKE, "M", "AlpacaEval", cells)} == {status}


def test_mean_over_models_knows_that_they_share_problems() -> None:
    generator, wrong, independent = np.random.default_rng(5), 0, 0
    for _ in range(300):
        easier = generator.random((150, 1)) < 0.4  # problems that a kind of data makes easier, for every model
        up = np.where(generator.random((150, 1)) < 0.5, 1.0, -1.0)
        changes = np.where(easier, up, 0.0) * (generator.random((150, 4)) < 0.8)
        found = [paired(np.zeros(150), changes[:, place], range(150)) for place in range(4)]
        wrong += mean([replace(one, problems="same") for one in found]).is_decided
        independent += mean(found).is_decided
    assert wrong / 300 <= 0.085  # 5 % and the error of 300 draws
    assert independent / 300 > 0.2


def test_shares_cannot_differ_by_more_than_all() -> None:
    few = paired([0.0, 0.5], [0.5, 1.0], range(2))
    assert few.low is not None and few.low >= -100 and few.high == 100
    assert not few.is_decided


def test_few_problems_stay_few_in_a_mean() -> None:
    few = paired([0.0, 0.0, 0.0], [0.3, 0.33, 0.36], range(3))
    assert mean([few]) == few and not few.is_decided
    both = mean([few, few])
    assert both.low is not None and few.low is not None and both.low < 33 - (33 - few.low) / 2**0.5 + 1e-6


def test_short_and_slow_runs_are_no_dip_and_recovery() -> None:
    slow = simulated_run(
        "Qwen3-4B", "Math-CoT-2.5k", shares(ending(0.3), ending(0.3), ending(0.3), SAFE), 3, SURGE,
        learning_rate=1e-5, epochs=2.0,
    )  # fmt: skip
    found = verdicts(cot(), slow)
    assert found["dip_and_recovery"].status == found["length_shrink"].status == "reproduced"


def test_lower_learning_rate_ends_lower() -> None:
    def at(end: float, seed: int, rate: float) -> Made:
        courses = shares(ending(end), ending(end), ending(end), SAFE)
        return simulated_run("Qwen3-4B", "Math-CoT-2.5k", courses, seed, learning_rate=rate, epochs=1.0)

    def status(low: float) -> str:
        return verdicts(at(0.6, 1, 5e-5), at(low, 2, 1e-5))["lower_learning_rate"].status

    assert [status(low) for low in (0.4, 0.8)] == ["reproduced", "not reproduced"]
    assert verdicts(at(0.6, 1, 5e-5))["lower_learning_rate"].status == "no data"
    assert verdicts(cot(), cot(4, learning_rate=1e-4))["lower_learning_rate"].status == "no data"  # not short


def test_poor_data_hardly_recovers() -> None:
    def status(*course: float) -> str:
        made = simulated_run("Qwen3-4B", "NuminaMath-2.5k", shares(course, course, course, SAFE), 1)
        return verdicts(made)["poor_data_hardly_recovers"].status

    assert status(0.5, 0.4, 0.3, 0.3, 0.3, 0.35, 0.35, 0.4) == "reproduced"
    assert status(*DIPPING) == "not reproduced"
    assert status(*FLAT) in ("undecided", "not reproduced")


def test_smaller_models_keep_longer_answers() -> None:
    def status(small: float, large: float) -> str:
        flat = shares(FLAT, FLAT, FLAT, SAFE)
        ends = {"Qwen3-1.7B": small, "Qwen3-4B": large}
        runs = [
            simulated_run(model, "Math-CoT-2.5k", flat, seed, (*SURGE[:-1], end))
            for seed, (model, end) in enumerate(ends.items())
        ]
        return verdicts(*runs)["length_by_size"].status

    assert [status(6000, 3000), status(3000, 6000), status(3000, 3000)] == ["reproduced", "not reproduced", "undecided"]


def test_repeated_runs_are_paired_in_order() -> None:
    def named(made: Made, name: str) -> Made:
        records = [msgspec.structs.replace(one, run=name) for one in made[0].results.records]
        results = msgspec.structs.replace(made[0].results, run=name, records=records)
        return ResultFile(f"{name}.json", "0", results), msgspec.structs.replace(made[1], run=name)

    runs = [named(cot(1), "a1"), named(cot(3), "a2"), named(numina(2), "b1"), named(numina(4), "b2")]
    found = verdicts(*runs)["data_quality"]
    shown = {(one.subject, one.scope) for one in found.findings if one.part == "Math-CoT above NuminaMath"}
    assert {("a1", "MATH500"), ("a2", "MATH500")} <= shown
    assert len(trained_runs(Library([file for file, _ in runs]), "measured")) == 4


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_nothing_or_everything_right_everywhere_is_never_reproduced(value: float) -> None:
    same = (value,) * 8
    runs = [
        simulated_run(model, data, shares(same, same, same, same), seed)
        for seed, (model, data) in enumerate(
            (model, data)
            for model in ("Qwen3-1.7B", "Qwen3-4B")
            for data in ("Math-CoT-2.5k", "Math-NoCoT-2.5k", "NuminaMath-2.5k", "Countdown-CoT-2.5k")
        )
    ]
    found = verdicts(*runs)
    assert "reproduced" not in {one.status for one in found.values()}
