"""Benchmarks: the same items every time, and scores that only a right final answer gets."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction

import msgspec
import pytest

from reprokit import benchmarks
from reprokit.benchmarks.grading.answers import final_answer
from reprokit.benchmarks.grading.expressions import BadExpression, evaluate
from reprokit.benchmarks.interface import PROTOCOLS, Benchmark, Item, Response
from reprokit.data.countdown import Puzzle, response
from reprokit.errors import UserError
from reprokit.recipe.judges import JUDGES
from reprokit.recipe.registry import benchmark_names
from reprokit.recipe.sampling import OFFICIAL

PROCEDURAL = [name for name in benchmark_names() if name not in OFFICIAL]


def value(benchmark: Benchmark, item: Item, text: str) -> float:
    return benchmark.score(item, Response(text), "official", {}).values["accuracy"]


def test_the_ten_benchmarks_of_the_paper_are_there_with_their_data_and_judges() -> None:
    assert len(OFFICIAL) == 10 and set(OFFICIAL) < set(benchmark_names())
    for name in benchmark_names():
        benchmark = benchmarks.get(name)
        assert benchmark.name == name
        assert (benchmark.read is not None) == (benchmark.upstream is not None) == (name in OFFICIAL)
        assert (benchmark.make is None) == (name in OFFICIAL)
        of_judges = {metric.judge for metric in benchmark.metrics if metric.judge}
        assert of_judges == {key for key, judge in JUDGES.items() if judge.benchmark == name}


def test_listing_the_benchmarks_imports_nothing_heavy() -> None:
    code = "from reprokit import benchmarks, data; import sys; benchmarks.benchmark_names(); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "vllm", "transformers", "reasoning_gym", "pyarrow"} & set(loaded)


@pytest.mark.parametrize("name", benchmark_names())
def test_scoring_needs_neither_torch_nor_vllm(name: str) -> None:
    code = f"from reprokit import benchmarks; import sys; benchmarks.get({name!r}); print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "vllm", "transformers"} & set(loaded)


def test_an_unknown_benchmark_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(UserError, match="unknown benchmark 'interface'; valid: .*countdown"):
        benchmarks.get("interface")


@pytest.mark.parametrize("name", PROCEDURAL)
def test_items_are_the_same_every_time_and_a_smaller_count_is_a_prefix(name: str) -> None:
    benchmark = benchmarks.get(name)
    items = benchmark.items()
    assert benchmark.name == name
    assert len(items) == benchmark.size == len({item.id for item in items})
    assert benchmark.items(20) == items[:20]
    assert benchmark.items(20, seed=1) != items[:20]
    assert all(item.messages[-1]["content"].endswith("within \\boxed{}.") for item in items)
    assert msgspec.json.decode(msgspec.json.encode(items), type=list[Item]) == items


@pytest.mark.parametrize("name", PROCEDURAL)
@pytest.mark.parametrize("count", [0, -3, 10**7])
def test_an_impossible_number_of_items_is_an_error(name: str, count: int) -> None:
    with pytest.raises(UserError, match=f"{count} .*items asked for; give a number from 1 to"):
        benchmarks.get(name).items(count)


@pytest.mark.parametrize("name", ["countdown", "countdown_repeats"])
def test_the_solver_gets_full_marks(name: str) -> None:
    benchmark = benchmarks.get(name)
    for item in benchmark.items():
        a, b, c = item.answer["numbers"]
        assert value(benchmark, item, response(Puzzle((a, b, c), item.answer["target"]))) == 1


COUNTDOWN = Item(id="x", messages=[], answer={"numbers": [5, 3, 7], "target": 22})


@pytest.mark.parametrize(
    ("text", "right", "answer"),
    [
        ("<think>x</think>\\boxed{7 + 3 * 5}", 1, "7 + 3 * 5"),
        ("\\boxed{7 + 3 \\times 5}", 1, "7 + 3 \\times 5"),
        ("<think>\\boxed{1}</think>\\boxed{0} no: \\boxed{(5*3)+7}", 1, "(5*3)+7"),
        ("<think>\\boxed{(5*3)+7}", 0, None),  # thinking has not ended
        ("<think>\\boxed{(5*3)+7}</think> It is 22.", 0, None),
        ("<think>x</think>\\boxed{22}", 0, "22"),  # the numbers are not used
        ("<think>x</think>\\boxed{5*3+7+7-7}", 0, "5*3+7+7-7"),  # one is used again
        ("<think>x</think>\\boxed{5*3-7}", 0, "5*3-7"),
        ("<think>x</think>\\boxed{5*3+7} or \\boxed{5*3-7}", 0, "5*3-7"),  # the last one counts
        ("<think>x</think>\\boxed{5*3+7=22}", 0, "5*3+7=22"),
        ("<think>x</think>\\boxed{__import__('os')}", 0, "__import__('os')"),
        ("<think>x</think>\\boxed{9**9**9**9}", 0, "9**9**9**9"),
        ("<think>x</think>\\boxed{ }", 0, None),
        ("", 0, None),
    ],
)
def test_countdown_scores(text: str, right: float, answer: str | None) -> None:
    for protocol in PROTOCOLS:
        score = benchmarks.get("countdown").score(COUNTDOWN, Response(text), protocol, {})
        assert (score.values, score.answer) == ({"accuracy": right}, answer)


def test_a_response_that_was_cut_off_is_wrong_in_the_clean_protocol_alone() -> None:
    cut = Response("<think>x</think>\\boxed{7 + 3 * 5}", finished=False)
    score = {protocol: benchmarks.get("countdown").score(COUNTDOWN, cut, protocol, {}) for protocol in PROTOCOLS}
    assert score["official"].values["accuracy"] == 1
    assert score["clean"].values["accuracy"] == 0 and score["clean"].answer is None


@pytest.mark.parametrize(
    ("name", "answer", "text", "right"),
    [
        ("chain_sum", "-4", "<think>4 - 8</think>\\boxed{-4}", 1),
        ("chain_sum", "1000", "\\boxed{1,000.0}", 1),
        ("chain_sum", "-4", "\\boxed{4}", 0),
        ("chain_sum", "12", "\\boxed{7 + 5 = 12}", 0),  # a mention is not an answer
        ("chain_sum", "12", "12", 0),
        ("syllogism", "Yes", "\\boxed{Yes}", 1),
        ("syllogism", "Yes", "\\boxed{Yes or No}", 0),
        ("syllogism", "No", "\\boxed{Yes}", 0),
    ],
)
def test_procedural_scores(name: str, answer: str, text: str, right: float) -> None:
    assert value(benchmarks.get(name), Item(id="x", messages=[], answer={"answer": answer}), text) == right


@pytest.mark.parametrize("name", PROCEDURAL)
@pytest.mark.parametrize(
    "text",
    ["\\boxed{" * 50_000, "}" * 50_000, "\\boxed{" + "(" * 50_000 + "}", "\\boxed{" + "-" * 199 + "1}", "\\", "\0"]
    + ["\\boxed{1e999999999}", "\\boxed{" + "9" * 100_000 + "}", "\\boxed{٣+١}", "\\boxed{1/0}", "\\boxed{1/(1-1)}"],
    ids=range(11),
)
def test_hostile_texts_score_zero(name: str, text: str) -> None:
    benchmark = benchmarks.get(name)
    assert value(benchmark, benchmark.items(1)[0], text) == 0


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed {3}", "3"),
        ("\\boxed{3} and \\boxed{4", "3"),  # cut off inside the second
        ("{ \\boxed{3}", "3"),
        ("} \\boxed{3}", "3"),
        ("\\boxed{\\{3\\}}", "\\{3\\}"),
        ("boxed{3}", None),
        ("</think>\\boxed{3}", "3"),  # the prompt opened the thinking
        ("<think></think>\\boxed{3}<think>", "3"),
    ],
)
def test_final_answer(text: str, answer: str | None) -> None:
    assert final_answer(text) == answer


def test_expressions_are_exact() -> None:
    assert evaluate("1/3 + 1/6") == (Fraction(1, 2), [1, 3, 1, 6])
    assert evaluate("2 - 3 - 4")[0] == -5
    assert evaluate("2 + 3 * -(4 - 1) / 2")[0] == Fraction(-5, 2)


@pytest.mark.parametrize("text", ["", "2 3", "2(3)", "(2", "2)", "+", "2 // 1", "0x10", "1_0", "1.5", "a", "1" * 7])
def test_other_texts_are_no_expressions(text: str) -> None:
    with pytest.raises(BadExpression):
        evaluate(text)
