"""Scores in a pool with time limits, summaries of cells, intervals, and scoring again without a GPU."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import binomtest

from reprokit import benchmarks
from reprokit.benchmarks.interface import Benchmark, Item, Metric, Protocol, Question, Reply, Response, Score
from reprokit.evaluation.scoring import Pool, Task
from reprokit.evaluation.statistics import estimate, majority, wilson_interval
from reprokit.evaluation.summary import summarise
from reprokit.records.files import write_json_lines
from reprokit.records.result import CellResult, Generation, MetricResult, Sample, SampleScore


def average(scores: Sequence[Sequence[float]]) -> Any:
    means = [float(np.mean(samples)) for samples in scores]
    return estimate(means, [1.0] * len(means), range(len(means)), share=True)


@pytest.mark.parametrize(("right", "items"), [(0, 20), (3, 20), (10, 20), (20, 20)])
def test_interval_of_one_sample_per_item_is_wilsons(right: int, items: int) -> None:
    interval = binomtest(right, items).proportion_ci(method="wilson")
    assert wilson_interval(right / items, items) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_interval_is_clustered_by_item() -> None:
    """Ten identical samples per item tell no more than one; ten that differ do."""
    once = average([[1.0]] * 10 + [[0.0]] * 10)
    same = average([[1.0] * 10] * 10 + [[0.0] * 10] * 10)
    mixed = average([[1.0, 0.0] * 5] * 20 + [[1.0] * 10, [0.0] * 10])
    assert (same.mean, same.low, same.high) == pytest.approx((once.mean, once.low, once.high))
    assert mixed.high - mixed.low < 0.5 * (once.high - once.low)


def test_rows_of_one_problem_are_one_cluster() -> None:
    """A problem that stands in the data four times tells no more than one that stands there once."""
    once = estimate([1.0, 0.0] * 10, [1.0] * 20, range(20), share=True)
    repeated = estimate([1.0, 0.0] * 40, [1.0] * 80, list(range(20)) * 4, share=True)
    apart = estimate([1.0, 0.0] * 40, [1.0] * 80, range(80), share=True)
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))
    assert apart.high - apart.low < 0.6 * (repeated.high - repeated.low)


def test_weights_count_and_items_without_weight_do_not() -> None:
    found = estimate([1.0, 0.0, 0.5], [3.0, 1.0, 0.0], "abc", share=True)
    assert found.mean == 0.75
    rewards = estimate([-2.0, 4.0], [1.0, 1.0], "ab", share=False)
    assert rewards.mean == 1.0 and rewards.high - rewards.mean == pytest.approx(1.959964 * 3.0)
    with pytest.raises(ValueError):
        estimate([1.0], [0.0], "a", share=True)


@pytest.mark.parametrize(
    ("values", "answers", "expected"),
    [
        ([1, 0, 0], ["a", "b", "b"], 0),
        ([0, 1, 1], ["a", "b", "b"], 1),
        ([1, 0], ["a", "b"], 1),  # of answers that tie, the first
        ([0, 1, 0], [None, "b", None], 1),  # no answer is no vote
        ([0, 0], [None, None], 0),
    ],
)
def test_majority(values: list[float], answers: list[str | None], expected: float) -> None:
    assert majority(values, answers) == expected


ITEMS = [Item(id=name, messages=[], answer={}, group=group) for name, group in (("a", "x"), ("b", "x"), ("c", "y"))]


def score_by_text(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    """Right if the text says so; some texts take for ever or kill the process."""
    if response.text == "hang":
        while True:
            time.sleep(1)
    if response.text == "fail":
        raise ValueError("a fault of the scorer")
    if response.text == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    finished = response.finished or protocol == "official"
    values = {"accuracy": float(response.text == "right" and finished)}
    if isinstance(verdict := replies.get("q"), float):
        values["verdict"] = verdict
    return Score(values, response.text or None)


def questions(item: Item, response: Response, judges: Mapping[str, str]) -> dict[str, Question]:
    return {"q": Question("RB2", item.id, response.text)}


TOY = Benchmark(
    name="toy",
    title="Toy",
    size=3,
    score=score_by_text,
    version=7,
    metrics=(Metric(), Metric("verdict", "mean verdict", "reward", judge="RB2")),
    questions=questions,
    votes=True,
    score_seconds=1.0,
)


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    known = benchmarks.get
    monkeypatch.setattr(benchmarks, "get", lambda name: TOY if name == "toy" else known(name))


def test_a_response_that_hangs_or_kills_its_process_is_a_wrong_one_and_the_others_are_scored(tmp_path: Path) -> None:
    write_json_lines(tmp_path / "items.jsonl", ITEMS)
    texts = ["right", "hang", "wrong", "die", "right", "hang", "fail", "right"]
    tasks = [Task("a", number, text, True, {}) for number, text in enumerate(texts)]
    with Pool("toy", tmp_path / "items.jsonl", processes=2) as pool:
        scores = pool.score(tasks)
    assert [score.sample for score in scores] == list(range(8))
    assert [score.values["official"]["accuracy"] for score in scores] == [1, 0, 0, 0, 1, 0, 0, 1]
    answers = ["right", None, "wrong", None, "right", None, None, "right"]
    assert [score.answers["official"] for score in scores] == answers
    assert [failure.split(": ")[1] for failure in pool.failures] == [
        "its time was up",
        "its process died",
        "its time was up",
        "ValueError",
    ]


def sample(item: str, number: int = 0, tokens: int = 8, reason: str = "stop") -> Sample:
    counts = {"prompt_tokens": 3, "response_tokens": tokens, "seconds": 0.1, "seed": 0}
    return Sample(benchmark="toy", item=item, sample=number, request="", text="", finish_reason=reason, **counts)


def scored(item: str, number: int, official: float, clean: float, verdict: float | None = None) -> SampleScore:
    judged = {} if verdict is None else {"verdict": verdict}
    return SampleScore(
        item=item,
        sample=number,
        values={"official": {"accuracy": official, **judged}, "clean": {"accuracy": clean, **judged}},
        answers={"official": "x", "clean": "x" if clean else None},
    )


def summary(samples: Sequence[Sample], scores: Sequence[SampleScore], judges: dict[str, str]) -> CellResult:
    settings = {"samples": 2}
    made = Generation(step=5, benchmark="toy", settings=settings, items="digest", provenance={"engine": "vLLM"})
    return summarise(TOY, ITEMS, samples, scores, made, judges, {"hub_id": "a/b"})


def metrics(result: CellResult) -> dict[tuple[str, str], MetricResult]:
    return {(metric.protocol, metric.metric): metric for metric in result.metrics}


ALL = [(item, number) for item in "abc" for number in (0, 1)]


def test_a_cell_has_both_protocols_lengths_and_what_made_it() -> None:
    samples = [sample(item, number, 10 * (place + 1)) for place, (item, number) in enumerate(ALL)]
    samples[0].finish_reason = "length"
    official = {("a", 0): 1, ("a", 1): 1, ("b", 0): 1}
    scores = [scored(item, number, official.get((item, number), 0), float(item == "a")) for item, number in ALL]
    result = summary(samples, scores, {})
    found = metrics(result)
    assert {name for _, name in found} == {"avg@2", "pass@2", "maj@2"}  # the judge was not asked
    assert found["official", "avg@2"].value == pytest.approx(50) and found["clean", "avg@2"].value == pytest.approx(
        100 / 3
    )
    assert found["official", "pass@2"].value == pytest.approx(200 / 3)
    assert found["official", "avg@2"].groups == {"x": pytest.approx(75), "y": 0}
    assert [key for key, metric in found.items() if metric.headline] == [("official", "avg@2")]
    low, high = found["official", "avg@2"].interval_low, found["official", "avg@2"].interval_high
    assert low is not None and high is not None and 0 <= low < 50 < high <= 100
    assert result.truncated_fraction == pytest.approx(1 / 6) and result.mean_response_tokens == 35
    assert result.response_token_quantiles["0.5"] == 35
    assert result.no_answer_fraction == {"official": 0, "clean": pytest.approx(4 / 6)}
    assert (result.scorer, result.items, result.data) == (7, "digest", {"hub_id": "a/b"})
    assert result.provenance == {"engine": "vLLM"}
    assert msgspec.json.decode(msgspec.json.encode(result), type=CellResult) == result


def test_verdicts_that_are_missing_are_counted_and_not_taken_for_zero() -> None:
    samples = [sample(item, number) for item, number in ALL]
    scores = [scored(item, number, 1, 1, None if item == "c" else 2.0 + number) for item, number in ALL]
    verdict = metrics(summary(samples, scores, {"RB2": "some model"}))["clean", "mean verdict"]
    assert (verdict.value, verdict.unit, verdict.missing, verdict.items) == (2.5, "reward", 2, 2)
    assert verdict.judge == "some model"
    without = [scored(item, number, 1, 1) for item, number in ALL]
    nothing = metrics(summary(samples, without, {"RB2": "some model"}))["official", "mean verdict"]
    assert (nothing.value, nothing.interval_low, nothing.missing) == (None, None, 6)


def test_a_cell_with_missing_or_repeated_samples_is_no_result() -> None:
    samples = [sample(item, number) for item, number in ALL]
    scores = [scored(item, number, 1, 1) for item, number in ALL]
    for broken in (scores[:-1], [*scores[:-1], scores[0]], []):
        with pytest.raises(ValueError, match="incomplete or repeated"):
            summary(samples, broken, {})
