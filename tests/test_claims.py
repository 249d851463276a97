"""The claims on the paper's own numbers, on the mini run, and on libraries that have little or odd things in them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from analysis.claims import CLAIMS, RULE, Finding, Verdict, judge, overall
from analysis.claims.__main__ import main
from analysis.claims.findings import direction
from analysis.claims.runs import COT, NUMINA, split_dataset, split_model
from analysis.claims.verdict import Status
from analysis.holdings import Library, read_library
from analysis.names import GENERAL
from analysis.runs import ResultFile
from analysis.statistics import from_interval
from reprokit.errors import UserError
from reprokit.records.details import details_path
from reprokit.records.files import write_json
from reprokit.records.record import MissingCell, Record, Results, read_results, write_results
from reprokit.words import PARTIAL, interpreter

RESULTS = Path(__file__).resolve().parent.parent / "results"
FOUR_B, SMALL = "Qwen3-4B_Math-CoT-20k_lr5e-5_ep8_bs256", "Qwen3-1.7B_Math-CoT-20k_lr5e-5_ep8_bs256"
DIP, RISE, PASS = "dip: scores fall below the base", "recovery: scores rise from the dip to the end", "the end is above"

PAPER = {
    "one_epoch": "undecided",  # nothing of OOD reasoning is known
    "lower_learning_rate": "no data",
    "dip_and_recovery": "reproduced",  # of the 4B model: of the others only the ends are known
    "dip_outside_math": "undecided",  # AIME24 has 30 problems
    "length_surge": "no data",
    "length_shrink": "undecided",  # two rounded ranges, of an unknown set of benchmarks
    "repeated_exposure": "reproduced",
    "full_data": "reproduced",
    "over_fitting": "no data",
    "data_quality": "reproduced",
    "poor_data_hardly_recovers": "no data",
    "structure": "reproduced",  # but for rewards, whose spread is not known
    "procedure": "reproduced",
    "other_teacher": "no data",
    "other_family": "no data",
    "capability_order": "reproduced",
    "capability_gains": "reproduced",
    "length_by_size": "no data",
    "asymmetry": "undecided",  # reasoning is known, HEx-PHI is not
}


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """The verdicts on the reported numbers by claim."""
    reported = ResultFile("reported.json", "0", read_results(RESULTS / "reported.json"))
    return {verdict.claim: verdict for verdict in judge(Library([reported]), "reported")}


def found(verdict: Verdict, part: str, subject: str = "", scope: str = "") -> Finding:
    """The one finding of that part."""
    named = [one for one in verdict.findings if one.part.startswith(part) and subject in one.subject]
    (one,) = [one for one in named if not scope or one.scope == scope]
    return one


def test_the_papers_own_numbers_give_its_verdicts_where_they_are_known(verdicts: dict[str, Verdict]) -> None:
    assert {claim: verdict.status for claim, verdict in verdicts.items()} == PAPER


def test_every_reproduced_verdict_has_a_test_behind_it(verdicts: dict[str, Verdict]) -> None:
    for verdict in verdicts.values():
        parts = [one for one in verdict.findings if one.counts and one.status == "reproduced"]
        assert all(one.p_value is not None for one in parts)
        assert bool(parts) or verdict.status != "reproduced"
        assert bool(verdict.records) == any(one.counts for one in verdict.findings)


def test_dip_and_recovery_of_the_4b_model(verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts["dip_and_recovery"]
    dips = {one.scope for one in verdict.findings if (one.part, one.subject, one.status) == (DIP, FOUR_B, "reproduced")}
    assert {"MATH500", "LCB v2", "IFEval", "TruthfulQA helpful"} <= dips
    assert not {"AIME24", "GPQA-D", "MMLU-Pro"} & dips
    ifeval = found(verdict, DIP, FOUR_B, "IFEval")
    assert ifeval.effect == pytest.approx(33.0 - 49.2) and "step 20" in ifeval.text
    for scope in ("MATH500", "LCB v2", "IFEval"):
        assert found(verdict, RISE, FOUR_B, scope).status == "reproduced"
    assert found(verdict, RISE, FOUR_B, "LCB v2").effect == pytest.approx(24.4 - 14.5)
    assert found(verdict, DIP, FOUR_B, GENERAL).status == "reproduced"
    assert found(verdict, PASS, FOUR_B).effect == pytest.approx((3.8 + 23.3 + 29.3) / 3)
    assert "Qwen3-14B" in verdict.detail and "No scores over the steps" in verdict.detail


def test_the_smallest_model_dips_and_does_not_pass_its_base(verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts["dip_and_recovery"]
    assert found(verdict, DIP, SMALL, "mean of all benchmarks").status == "reproduced"
    assert found(verdict, PASS, SMALL).status == "undecided"
    assert not any(one.counts for one in verdict.findings if one.subject == SMALL)
    gains = verdicts["capability_gains"]
    near = found(gains, "a small model ends near", scope="all but MMLU-Pro")
    assert near.status == "reproduced" and near.high is not None and near.high < 2.0
    assert found(gains, "MMLU-Pro of a small model").effect == pytest.approx(11.7)
    assert "not in the order of size: Qwen3-4B-Base gains most" in found(gains, "gain of each", "Qwen3-4B").text


def test_repeated_exposure_is_eight_of_nine_and_halueval_the_exception(verdicts: dict[str, Verdict]) -> None:
    part = found(verdicts["repeated_exposure"], "repeated", scope="fewer rows several times, against all rows once")
    assert "8 of 9" in part.text and "against it HaluEval;" in part.text
    assert part.p_value == pytest.approx(10 / 256)
    full = [one for one in verdicts["full_data"].findings if one.counts]
    assert [one.status for one in full] == ["reproduced", "reproduced"]
    assert "+2.4 points" in full[0].text and "p = 0.21 (by the mean alone undecided)" in full[0].text
    assert "by the mean alone" not in full[1].text


def test_ranges_of_lengths_are_shown_and_decide_nothing(verdicts: dict[str, Verdict]) -> None:
    (part,) = [one for one in verdicts["length_shrink"].findings if one.counts]
    assert "each is shorter, by 5,000 at least" in part.text and "cannot be tested" in part.text
    assert (part.effect, part.p_value) == (-5000, None)


def test_structure_has_two_sides_and_says_what_cannot_be_tested(verdicts: dict[str, Verdict]) -> None:
    parts = {one.part: one for one in verdicts["structure"].findings if one.counts}
    assert [(part, one.status) for part, one in parts.items()] == [
        ("CoT above NoCoT on reasoning", "reproduced"),
        ("NoCoT above CoT on IFEval", "reproduced"),
        ("NoCoT above CoT on TruthfulQA", "reproduced"),
    ]
    said = verdicts["structure"].detail
    assert "NoCoT above CoT on AlpacaEval 2.0 (all models, AlpacaEval 2.0 RB2): not counted." in said
    assert "-0.93 reward" in said and "no spread known: cannot be tested" in said
    lcb = found(verdicts["data_quality"], "NuminaMath below", "Qwen3-14B", "LCB v2")
    assert lcb.effect == pytest.approx(20.4 - 37.5) and lcb.status == "reproduced"


@pytest.mark.parametrize(
    ("low", "high", "sign", "status"),
    [
        (1.0, 9.0, 1, "reproduced"),
        (1.0, 9.0, -1, "not reproduced"),
        (-9.0, -1.0, -1, "reproduced"),
        (-1.0, 9.0, 1, "undecided"),
        (-1.0, 9.0, -1, "not reproduced"),  # a fall of 2 points is excluded
        (-5.0, 1.5, 1, "not reproduced"),
        (-3.0, 9.0, -1, "undecided"),
        (-9.0, 1.9, 0, "reproduced"),
        (-9.0, 2.1, 0, "undecided"),
        (1.0, 9.0, 0, "undecided"),
        (2.1, 9.0, 0, "not reproduced"),
    ],
)
def test_directions(low: float, high: float, sign: int, status: str) -> None:
    assert direction(from_interval((low + high) / 2, low, high, "", 100), sign) == status


def test_models_differ_by_more_than_their_errors(verdicts: dict[str, Verdict]) -> None:
    assert "Cochran's Q = 26.1, p < 0.001" in found(verdicts["procedure"], "the lift depends").text


def test_undecided_says_how_many_more_items(verdicts: dict[str, Verdict]) -> None:
    verdict = verdicts["dip_outside_math"]
    assert verdict.more_items is not None and verdict.more_items > 1000
    assert verdict.low is not None and verdict.high is not None and verdict.low < 0 < verdict.high


def test_reported_changes_without_their_ends_are_tested_with_the_widest_interval(verdicts: dict[str, Verdict]) -> None:
    aime = found(verdicts["one_epoch"], "in-domain", scope="AIME24")
    assert aime.effect == 29.7 and aime.low is not None
    assert aime.low == pytest.approx(29.7 - 1.96 * 100 * (0.5 / 30) ** 0.5, abs=0.01)
    assert "1 no data" in verdicts["one_epoch"].detail  # nothing of OOD reasoning is known


def test_records_used_are_named(verdicts: dict[str, Verdict]) -> None:
    used = verdicts["repeated_exposure"].records
    assert {one.file for one in used} == {"reported.json"} and len(used) == 18
    assert {one.run for one in used} == {
        "Qwen3-14B_Math-CoT-2.5k_lr5e-5_ep8_bs32",
        "Qwen3-14B_Math-CoT-20k_lr5e-5_ep1_bs32",
    }


def test_mini_is_judged_on_what_it_has() -> None:
    library = Library([ResultFile("mini.json", "0", read_results(RESULTS / "mini.json"))])
    statuses = {verdict.claim: verdict.status for verdict in judge(library, "measured")}
    judged = {"dip_and_recovery": "undecided", "length_surge": "not reproduced", "length_shrink": "not reproduced"}
    assert statuses == {claim.id: judged.get(claim.id, "no data") for claim in CLAIMS}
    assert {verdict.status for verdict in judge(library, "reported")} == {"no data"}


def test_one_run_is_judged_alone() -> None:
    library = read_library(RESULTS)
    of_small = {verdict.claim: verdict for verdict in judge(library, "reported", SMALL)}
    assert of_small["dip_and_recovery"].status == "undecided"  # it has no other to stand behind
    assert of_small["repeated_exposure"].status == "no data"
    pairs = {one.subject for one in of_small["capability_order"].findings if one.counts}
    assert pairs == {"Qwen3-4B-Base over Qwen3-1.7B-Base"}
    with pytest.raises(UserError, match=r"run=nowhere: no reported results of it; there are: Gemma3"):
        judge(library, "reported", "nowhere")


def test_both_origins_are_judged_for_themselves() -> None:
    both = judge(read_library(RESULTS))
    assert [verdict.origin for verdict in both] == ["measured"] * len(CLAIMS) + ["reported"] * len(CLAIMS)
    names = {used.run for verdict in both if verdict.origin == "measured" for used in verdict.records}
    assert names == {"mini"}


@pytest.mark.parametrize("seed", range(12))
def test_odd_libraries_never_crash(seed: int) -> None:
    generator = random.Random(seed)
    records = read_results(RESULTS / ("mini.json" if seed % 3 == 0 else "reported.json")).records
    chosen = generator.sample(records, k=generator.choice((1, 3, 40, len(records))))
    for record in chosen:
        for name in generator.sample(("learning_rate", "epochs", "batch_size", "schedule", "items"), k=seed % 5):
            setattr(record, name, None)
        if generator.random() < 0.1:
            record.value = generator.choice((0.0, 100.0, -3.0, 1e6))
        if generator.random() < 0.1:
            record.dataset, record.mean_response_tokens = generator.choice((None, "", "-20k", COT)), 0.0
    library = Library([ResultFile("odd.json", "0", Results(run="odd", records=chosen))])
    for origin in ("measured", "reported"):
        assert len(judge(library, origin)) == len(CLAIMS)


@pytest.mark.parametrize("records", [[], [{"step": 0}], [{"step": 640, "dataset": COT}]])
def test_next_to_nothing_is_no_data(records: list[dict[str, object]]) -> None:
    plain = {"run": "r", "model": "M-4B", "benchmark": "MATH500", "metric": "avg@3", "value": 5.0, "unit": "percent"}
    made = [msgspec.convert({**plain, "origin": "measured", **record}, Record) for record in records]
    verdicts = judge(Library([ResultFile("r.json", "0", Results(run="r", records=made))]), "measured")
    assert {verdict.status for verdict in verdicts} == {"no data"}


def test_names_of_data_and_models_tell_what_is_compared() -> None:
    assert split_dataset("Math-CoT-2.5k") == (COT, 2.5)
    assert split_dataset("Numina-Math-20k") == split_dataset("NuminaMath-20k") == (NUMINA, 20.0)
    assert split_dataset("Countdown-CoT") == ("Countdown-CoT", None)
    assert split_model("InternLM2.5-20B-Base") == ("InternLM2.5", 20.0)
    assert split_model("Qwen3-mini") == ("Qwen3-mini", None)


def test_command_shows_a_table_and_one_claim_in_detail(capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"results={RESULTS}", "origin=reported"]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert all(claim.id in shown for claim in CLAIMS) and "reproduced" in shown
    assert main([*words, "claim=repeated_exposure"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "8 of 9" in shown and "18 records of reported.json" in shown and "seen once" in shown


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("origin=paper", "origin=paper: valid are measured and reported"),
        ("claim=dip", "claim=dip: valid are one_epoch, lower_learning_rate, dip_and_recovery"),
        ("run=x", "run=x: no results of it; there are: "),
        ("figure=3", "unknown: figure"),
        ("results=nowhere", "no result file"),
    ],
)
def test_command_says_what_is_wrong(word: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"results={RESULTS}", word] if "results" not in word else [word]) == 2
    assert message in capsys.readouterr().err


def test_command_prints_the_same_whatever_the_hash_seed() -> None:
    command = [sys.executable, "-m", "analysis.claims", f"results={RESULTS}"]
    printed = [
        subprocess.run(command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, check=True).stdout
        for seed in ("0", "7")
    ]
    assert printed[0] == printed[1] and b"capability_order" in printed[0]


def test_markup_in_names_is_shown_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = read_results(RESULTS / "mini.json")
    for record in results.records:
        record.run = "[red]odd[/blue]"
    write_results(tmp_path / "odd.json", msgspec.structs.replace(results, run="[red]odd[/blue]"))
    assert main([f"results={tmp_path}", "claim=length_surge", "origin=measured"]) == 0
    assert "[red]odd[/blue]" in "".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("parts", "status"),
    [
        ([], "no data"),
        (["no data", "no data"], "no data"),
        (["reproduced", "reproduced"], "reproduced"),
        (["reproduced", "reproduced", "reproduced", "no data"], "undecided"),
        (["reproduced", "no data", "no data"], "undecided"),
        (["reproduced", "undecided"], "undecided"),
        (["undecided", "no data"], "undecided"),
        (["reproduced", "undecided", "no data", "not reproduced"], "not reproduced"),
    ],
)
def test_a_claim_is_reproduced_only_as_a_whole(parts: list[Status], status: str) -> None:
    assert overall([Finding("part", "run", "all", part, "") for part in parts]) == status


def test_command_says_the_rule_and_that_there_is_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"results={RESULTS}", "origin=measured", "claim=structure"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert RULE in shown and "no findings" in shown and "no file" not in shown and "detectable" not in shown


def test_one_doubtful_number_is_one(verdicts: dict[str, Verdict]) -> None:
    assert "1 of the numbers used carries a note" in verdicts["repeated_exposure"].detail
    assert "14 of the numbers used carry a note" in verdicts["dip_and_recovery"].detail


def test_missing_cells_of_what_was_judged_are_partial(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = read_results(RESULTS / "mini.json")
    lacking = [record for record in whole.records if (record.step, record.benchmark) != (40, "countdown")]
    missing = [MissingCell(step=40, benchmark="countdown")]
    write_results(tmp_path / "mini.json", msgspec.structs.replace(whole, records=lacking, missing=missing))
    others = [msgspec.structs.replace(record, run="other") for record in whole.records]
    write_results(tmp_path / "other.json", msgspec.structs.replace(whole, run="other", records=others))
    write_results(tmp_path / "reported.json", read_results(RESULTS / "reported.json"))
    words = [f"results={tmp_path}", "claim=length_surge"]
    assert main(words) == main([*words, "run=mini"]) == PARTIAL
    shown = " ".join(capsys.readouterr().out.split())
    assert "PARTIAL: 1 cell without a result, of mini" in shown
    assert f"to fill: {interpreter()} -m reprokit.launch recipe=runs/mini/recipe.yaml" in shown
    assert main([*words, "run=other"]) == main([*words, "origin=reported"]) == 0
    assert "PARTIAL" not in capsys.readouterr().out


def test_the_longest_on_the_way_is_said_to_be_before_the_end() -> None:
    (verdict,) = [one for one in judge(read_library(RESULTS), "measured") if one.claim == "length_surge"]
    assert "tokens, longest before the end: 116 tokens at step 480, end 118 tokens: " in verdict.detail


def test_damaged_details_are_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_results(tmp_path / "mini.json", read_results(RESULTS / "mini.json"))
    write_json(details_path(tmp_path, "mini"), {"schema": 1})
    assert main([f"results={tmp_path}"]) == 2
    assert "damaged" in capsys.readouterr().err


def test_a_run_is_judged_on_the_numbers_that_it_has() -> None:
    library = read_library(RESULTS)
    assert {verdict.origin for verdict in judge(library, None, "mini")} == {"measured"}
    assert {verdict.origin for verdict in judge(library)} == {"measured", "reported"}
