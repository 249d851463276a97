"""Two runs, or a run and the paper, side by side: right numbers, and every reason not to believe them."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from analysis.compare import compare, main, sides
from analysis.holdings import Library, read_library
from analysis.statistics import difference
from reprokit.records.details import CellDetails, Details, Lengths, details_path
from reprokit.records.files import write_json
from reprokit.records.record import Record, Results, write_results

PROJECT = Path(__file__).resolve().parent.parent
REPORTED = PROJECT / "results" / "reported.json"
COT_4B = "Qwen3-4B_Math-CoT-20k_lr5e-5_ep8_bs256"
MADE = {"settings": {"temperature": 0.6, "max_tokens": 200}, "data": {"items": "a" * 64}, "scorer": 1}


def make_record(run: str, step: int, benchmark: str, value: float, **others: Any) -> Record:
    defaults: dict[str, Any] = {"model": "tiny", "metric": "pass@1", "unit": "percent", "origin": "measured"}
    defaults |= {"items": 100, "samples_per_item": 1, "protocol": "official", "provenance": "evaluation_1"}
    defaults |= {"interval_low": value - 5, "interval_high": value + 5, "dataset": "rows" if step else None}
    return Record(run=run, step=step, benchmark=benchmark, value=value, **(defaults | others))


def write_run(folder: Path, run: str, records: Sequence[Record], made: dict[str, Any] | None = None) -> None:
    write_results(
        folder / f"{run}.json", Results(run=run, records=list(records), provenance={"evaluation_1": made or MADE})
    )


def write_details(folder: Path, run: str, benchmark: str, metric: str, solved: set[int]) -> None:
    none = Lengths(responses=0, mean_tokens=None)
    cell = CellDetails(
        step=10,
        benchmark=benchmark,
        metric=metric,
        unit="percent",
        digest="a" * 64,
        items={f"item {number}": float(number in solved) for number in range(100)},
        finished=none,
        truncated=none,
        unfinished_thinking=0,
        behaviour={},
        made_from="b" * 64,
        detectors=1,
    )
    write_json(details_path(folder, run), Details(run=run, cells=[cell]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs: countdown falls and recovers in `one`, syllogism is in both, chain_sum only in `one`."""
    course = zip((0, 10, 20, 40), (30.0, 12.5, 20.0, 55.0), strict=True)
    one = [make_record("one", step, "countdown", value) for step, value in course]
    one += [make_record("one", step, "syllogism", 40.0) for step in (0, 40)]
    write_run(tmp_path, "one", [*one, make_record("one", 40, "chain_sum", 9.0)])
    both = [make_record("two", 10, "countdown", 80.0), make_record("two", 10, "syllogism", 41.0)]
    write_run(tmp_path, "two", both)
    shutil.copy(REPORTED, tmp_path / "reported.json")
    return tmp_path


def shown(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, str]:
    code = main([*words, f"results={folder}"])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def line_of(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.startswith(start))


def test_last_steps_are_compared_and_curves_have_their_ends(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = shown(capsys, folder, "one", "two")
    assert code == 3
    assert (
        line_of(text, "A:").startswith("A: one (measured), step 40. tiny on rows")
        and "B: two (measured), step 10." in text
    )
    library = read_library(folder)
    found = compare(library, *sides(library, ["one", "two"], [None, None]))
    expected = {column.title: difference(library, *pair) for column, pair in found.pairs.items()}
    assert expected["Countdown"].effect == 25.0 and found.differences == dict(
        zip(found.pairs, expected.values(), strict=True)
    )
    countdown = expected["Countdown"]
    assert f"+25.0 [{countdown.low:+.1f}, {countdown.high:+.1f}]  <0.001" in line_of(text, "Countdown  ")
    assert countdown.detectable and f"  {countdown.detectable:.1f}  " in line_of(text, "Countdown  ")
    curve = text[text.index("Over all steps") :]
    assert line_of(curve, "Countdown").split("  ")[1:3] == ["12.5 at 10", "55.0 at 40"]
    assert "Not compared, no number of B: Chain sum" in text
    assert text.splitlines()[-1].startswith(
        "B against A: higher in 1, lower in 0, not told apart in 1, not compared in 1 of 3 columns"
    )
    assert "step 40 / 10" in line_of(text, "Runs differ in")


def test_steps_can_be_chosen(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = shown(capsys, folder, "one", "two", "step=10")
    assert code == 3 and "A: one (measured), step 10" in text and "no number of A: Chain sum, Syllogism" in text
    code, text = shown(capsys, folder, "one", "two", "step=20,10")
    assert "A: one (measured), step 20" in text and "B: two (measured), step 10" in text
    code, text = shown(capsys, folder, "one", "one", "step=0,40")
    assert "+25.0" in line_of(text, "Countdown ") and "no number of A: Chain sum" in text and code == 3
    code, text = shown(capsys, folder, "one", "one", "step=10,20")
    assert (
        code == 3 and "no number of A: Chain sum, Syllogism" in text and "no number of B: Chain sum, Syllogism" in text
    )
    assert text.splitlines()[-1].endswith("not told apart in 0, not compared in 2 of 3 columns.")
    code, text = shown(capsys, folder, "one", "two", "step=30")
    assert code == 2 and "step=30: one has no measured number there; it may have some at 0, 10, 20, 40" in text
    for wrong in ("step=ten", "step=1,2,3", "step=-1", "step=٣"):
        code, text = shown(capsys, folder, "one", "two", wrong)
        assert code == 2 and "give one step, or two" in text


def test_the_same_problems_are_compared_in_pairs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, solved in (("one", set(range(50))), ("two", set(range(8, 60)))):
        write_run(folder, run, [make_record(run, 10, "countdown", float(len(solved)))])
        write_details(folder, run, "countdown", "pass@1", solved)
    code, text = shown(capsys, folder, "one", "two")
    line = line_of(text, "Countdown ")
    assert code == 0 and "paired by problem: McNemar, exact" in line and "100 problems" in line
    # 10 problems solved only by two, 8 only by one: two-sided binomial of 8 of 18.
    assert "+2.0 [" in line and "  0.815  " in line


def test_details_of_one_metric_do_not_stand_for_another(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for run, solved in (("one", set(range(50))), ("two", set(range(50)))):
        values = {"helpful": 50.0, "truthful": 20.0 if run == "one" else 80.0}
        records = [make_record(run, 10, "truthfulqa", value, metric=metric) for metric, value in values.items()]
        write_run(folder, run, records)
        write_details(folder, run, "truthfulqa", "helpful", solved)
    text = shown(capsys, folder, "one", "two")[1]
    assert "paired" in line_of(text, "TruthfulQA helpful")
    truthful = line_of(text, "TruthfulQA truthful")
    assert "paired" not in truthful and "<0.001" in truthful


def test_a_run_against_what_the_paper_reports_of_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"model": "Qwen3-4B-Base", "dataset": "Math-CoT-20k", "metric": "avg@3", "samples_per_item": 3}
    for run, source in ((COT_4B, "training"), (f"{COT_4B}_published", "published")):
        record = make_record(run, 640, "math500", 84.0, items=500, checkpoints=source, **settings)
        write_run(folder, run, [record])
    for words in ([COT_4B, "paper"], [f"{COT_4B}_published", "paper"], [COT_4B, f"{COT_4B}@reported"]):
        code, text = shown(capsys, folder, *words)
        line = line_of(text, "MATH500")
        assert code == 3 and f"B: {COT_4B} (reported), step 640" in text
        assert "84.0 ± 5.0  86.2" in line and "+2.2 [" in line and "conservative" in line
        assert "no number of A: AIME24, LCB v2" in text
    code, text = shown(capsys, folder, "paper", f"{COT_4B}@measured")
    assert f"B: {COT_4B} (measured)" in text and "-2.2 [" in line_of(text, "MATH500")
    code, text = shown(capsys, folder, f"{COT_4B}@reported", "paper")
    assert code == 0 and "0.0" in line_of(text, "MATH500")


def test_every_difference_between_the_evaluations_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = {**MADE, "settings": {"temperature": 0.0, "max_tokens": 200}, "data": {"items": "c" * 64}}
    record = make_record(
        "two", 10, "countdown", 80.0, items=50, samples_per_item=4, metric="avg@4", epochs=8, dataset="other"
    )
    write_run(folder, "two", [record], made)
    text = shown(capsys, folder, "one", "two", "step=10")[1]
    assert "Evaluated differently, so that their difference is not only the models' (A / B):" in text
    for fact in (
        "items 100 / 50 (Countdown)",
        "samples per item 1 / 4 (Countdown)",
        "metric pass@1 / avg@4 (Countdown)",
        "settings.temperature 0.6 / 0 (Countdown)",
        "data.items aaaaaaaaaaaa... / cccccccccccc... (Countdown)",
    ):
        assert f"  {fact}" in text.splitlines()
    assert "max_tokens" not in text and "scorer" not in text
    assert "dataset rows / other; epochs not recorded / 8" in line_of(text, "Runs differ in")
    assert text.splitlines()[-1].endswith("1 evaluated differently, see above.")
    write_run(folder, "two", [make_record("two", 10, "countdown", 80.0)], {"harness": "lm-eval", "version": "0.4.9"})
    assert "  harness this kit's own / lm-eval (Countdown)" in shown(capsys, folder, "one", "two", "step=10")[1]


def test_equal_evaluations_have_nothing_to_say(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = shown(capsys, folder, "one", "one")
    assert code == 0 and "Evaluated" not in text and "nothing that records say" in text
    assert "higher in 0, lower in 0, not told apart in 3 of 3 columns." in text


def test_without_a_column_in_common_nothing_is_compared(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = shown(capsys, folder, "one", COT_4B)
    assert code == 3 and "not compared in 12 of 12 columns" in text and "B - A" not in text


def test_names_that_are_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = shown(capsys, folder, "onne", "two")
    assert code == 2 and "no run 'onne'. Did you mean one? There are:" in text
    assert "  measured: one, two\n  reported: Gemma3-27B-Base, " in text
    for words, message in (
        (["one", "paper"], "no number of run 'one' is reported"),
        (["paper", "paper"], "one of the two must be a run"),
        (["one@reported", "two"], "no run 'one@reported'"),
        (["one"], "1 name given (one), two are needed"),
        (["one", "two", "steps=4"], "3 names given (one, two, steps=4)"),
    ):
        code, text = shown(capsys, folder, *words)
        assert code == 2 and message in text


def test_names_do_not_reach_the_terminal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    name = "evil\x1b[2J\nrun"
    results = Results(run=name, records=[make_record(name, 10, "bench\x1b]0;x", 80.0, model="m\x07")])
    write_results(folder / "evil.json", results)
    for words in ([name, name], [name, "one"], ["nobody", name]):
        text = shown(capsys, folder, *words)[1]
        assert "\x1b" not in text and "\x07" not in text


def test_reported_numbers_are_those_of_the_paper() -> None:
    library: Library = read_library(PROJECT / "results")
    found = compare(library, *sides(library, ["Qwen3-4B-Base", COT_4B], [None, None]))
    effects = {column.title: round(one.effect, 1) for column, one in found.differences.items()}
    # Section 5 of the paper: +23.3 on GPQA-D and +29.3 on MMLU-Pro.
    assert (effects["GPQA-D"], effects["MMLU-Pro"]) == (23.3, 29.3)


def test_another_harness_against_the_paper_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    known: dict[str, Any] = {"model": "Qwen3-4B-Base", "dataset": "Math-CoT-20k", "items": 500, "samples_per_item": 3}
    known |= {"metric": "avg@3", "protocol": None}
    write_run(folder, COT_4B, [make_record(COT_4B, 640, "math500", 84.0, source="lm-eval, a.json", **known)])
    _, text = shown(capsys, folder, COT_4B, "paper")
    assert "harness lm-eval, a.json / not recorded (MATH500)" in text
    known["protocol"] = "official"
    write_run(folder, COT_4B, [make_record(COT_4B, 640, "math500", 84.0, **known)])
    _, text = shown(capsys, folder, COT_4B, "paper")
    assert "harness" not in text and "protocol" not in text and "evaluated differently" not in text


def test_a_base_that_another_harness_measured_is_no_end_of_the_curve(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    records = [make_record("three", step, "countdown", 60.0 + step, model="small") for step in (10, 20)]
    write_run(folder, "three", records)
    other = make_record("zero", 0, "countdown", 1.0, model="small", source="lm-eval, a.json", protocol=None)
    write_run(folder, "zero", [other])
    _, text = shown(capsys, folder, "three", "one")
    assert "70.0 at 10" in text and "80.0 at 20" in text and "1.0 at 0" not in text
