"""The paper's numbers, as they are kept in results/reported.json."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from reprokit.records.record import Record, read_results

REPORTED = Path(__file__).resolve().parent.parent / "results" / "reported.json"
RUN_NAME = re.compile(
    r"(?P<model>[^_]+)_(?P<dataset>[^_]+)_lr(?P<rate>[0-9]e-[0-9])_ep(?P<epochs>\d+)_bs(?P<batch>\d+)(?P<constant>_ConstLR)?"
)
NAME_OF_DATASET = {"NuminaMath-20k": "Numina-Math-20k"}  # the paper's run names spell this one differently
BENCHMARKS = [
    "MATH500",
    "AIME24",
    "LiveCodeBench v2",
    "GPQA-Diamond",
    "MMLU-Pro",
    "IFEval",
    "AlpacaEval 2.0",
    "HaluEval",
]


@pytest.fixture(scope="module")
def records() -> list[Record]:
    return read_results(REPORTED).records


def test_all_are_here_once(records: list[Record]) -> None:
    assert len(records) == 465
    keys = Counter((r.run, r.step, r.benchmark, r.metric, r.source) for r in records)
    assert max(keys.values()) == 1


def test_units_and_versions_add_up(records: list[Record]) -> None:
    assert Counter(r.unit for r in records) == {"percent": 431, "reward": 26, "percentage points": 4, "tokens": 4}
    assert Counter("v2" if ", v2" in str(r.source) else "v1" for r in records) == {"v1": 389, "v2": 76}
    assert sum(r.step == 0 for r in records) == 118
    assert sum(r.note is not None for r in records) == 36


def test_each_is_reported_and_traceable(records: list[Record]) -> None:
    provenance = read_results(REPORTED).provenance
    for record in records:
        assert record.origin == "reported" and record.source
        assert record.interval_low is None and record.mean_response_tokens is None
        assert record.provenance in provenance
        assert provenance[record.provenance]["version"] in record.source
    assert {record.provenance for record in records} == set(provenance)
    assert all(entry["evidence"] for entry in provenance.values())


def test_values_are_possible(records: list[Record]) -> None:
    assert all(0 <= r.value <= 100 for r in records if r.unit == "percent")
    for record in records:
        if record.unit == "percent" and record.metric.startswith("avg@"):
            assert record.metric == f"avg@{record.samples_per_item}"
            graded = (record.items or 0) * (record.samples_per_item or 0)
            nearest = round(record.value * graded / 100) / graded * 100
            assert abs(nearest - record.value) < 0.051 + 0.005, record  # one decimal, of a four-digit fraction


def test_run_names_say_what_the_fields_say(records: list[Record]) -> None:
    for record in records:
        if record.dataset is None:
            assert record.run == record.model and record.step == 0
            assert record.learning_rate is record.epochs is record.batch_size is record.schedule is None
            continue
        parts = RUN_NAME.fullmatch(record.run)
        assert parts, record.run
        assert f"{parts['model']}-Base" == record.model
        assert parts["dataset"] == NAME_OF_DATASET.get(record.dataset, record.dataset)
        assert float(parts["rate"]) == record.learning_rate
        assert (int(parts["epochs"]), int(parts["batch"])) == (record.epochs, record.batch_size)
        assert record.schedule == ("constant" if parts["constant"] else "cosine")
        assert record.step > 0
    assert len({record.run for record in records}) == 31


@pytest.mark.parametrize(
    ("run", "row"),
    [
        ("Qwen3-14B-Base", [77.8, 14.7, 37.5, 44.1, 61.8, 64.2, 0.53, 54.7, 94.4]),
        ("Qwen3-14B_Math-CoT-20k_lr5e-5_ep8_bs256", [95.1, 66.0, 55.1, 63.3, 74.4, 68.9, 1.42, 72.8, 95.6]),
        ("Qwen3-14B_Math-NoCoT-20k_lr5e-5_ep8_bs256", [82.4, 17.0, 40.3, 48.3, 69.1, 71.7, 2.11, 70.9, 100.0]),
        ("Qwen3-8B_Numina-Math-20k_lr5e-5_ep8_bs256", [72.5, 7.0, 7.9, 37.2, 48.2, 37.8, -0.7, 64.2, 89.8]),
        ("InternLM2.5-20B_Countdown-CoT-20k_lr5e-5_ep8_bs256", [54.5, 2.3, 22.1, 25.3, 47.5, 39.6, 0.4, 70.2, 75.5]),
    ],
)
def test_rows_of_table_2(records: list[Record], run: str, row: list[float]) -> None:
    cells = {(r.benchmark, r.metric): r.value for r in records if r.run == run and r.source == "Table 2, v1"}
    found = {benchmark: value for (benchmark, _), value in cells.items()}
    assert [found[name] for name in [*BENCHMARKS, "TruthfulQA"]] == row
    assert len(cells) == 9 and ("TruthfulQA", "helpful") in cells and ("AlpacaEval 2.0", "mean reward RB2") in cells


def test_doubts_are_kept(records: list[Record]) -> None:
    setting_3 = [r for r in records if "Setting 3" in str(r.source) and r.benchmark == "MMLU-Pro"]
    assert [r.value for r in setting_3] == [70.5] and "59.8" in str(setting_3[0].note)
    lengths = [r for r in records if r.unit == "tokens"]
    assert sorted((r.step, r.value) for r in lengths) == [(20, 28000), (20, 30000), (640, 7000), (640, 23000)]
    assert {r.benchmark for r in lengths} == {"all benchmarks"} and all(r.note for r in lengths)
    changes = {r.benchmark: r.value for r in records if r.unit == "percentage points"}
    assert changes == {"MATH500": 12.7, "AIME24": 29.7, "IFEval": -9.8, "TruthfulQA": -15.1}
