r"""MATH500 and AIME24: prompts, the answers that both protocols read, and the real files graded."""

from __future__ import annotations

import json
import random
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reprokit.benchmarks import get
from reprokit.benchmarks.grading import mathematics
from reprokit.benchmarks.grading.mathematics import BoxedFormulas, _parse, _patterns, in_box, problem, score
from reprokit.benchmarks.interface import PROTOCOLS, Item, Response
from reprokit.errors import UserError

RIGHT, WRONG = 1.0, 0.0
DATA = Path(__file__).parents[2] / "shared" / "data"
REAL = {"math500": DATA / "math500.jsonl", "aime24": DATA / "aime24.json"}


def real_items(name: str) -> list[Item]:
    if not REAL[name].exists():
        pytest.skip(f"the real {REAL[name].name} is not here")
    return read(name, REAL[name])


def read(name: str, *paths: Path) -> list[Item]:
    reader = get(name).read
    assert reader is not None
    return reader(paths)


def verdicts(gold: str, text: str, finished: bool = True) -> list[tuple[float, str | None]]:
    """Value and answer by protocol, for a problem whose right answer is `gold`."""
    return graded(problem("x", "", official=in_box(gold), clean=in_box(gold)), Response(text, finished))


def graded(item: Item, response: Response) -> list[tuple[float, str | None]]:
    scores = [score(item, response, protocol, {}) for protocol in PROTOCOLS]
    return [(one.values["accuracy"], one.answer) for one in scores]


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


OWN_ROW = {
    "problem": "What is $\\frac{1}{2}+\\frac{1}{4}$?",
    "solution": "The sum is $\\boxed{\\frac{3}{4}}$.",
    "answer": "\\frac{3}{4}",
    "subject": "Prealgebra",
    "level": 1,
    "unique_id": "own/1.json",
}


def test_a_row_of_math500_becomes_an_item_with_the_official_prompt(tmp_path: Path) -> None:
    (item,) = read("math500", write_lines(tmp_path / "test.jsonl", OWN_ROW))
    assert item.id == "own/1.json" and item.group == "Prealgebra"
    assert item.messages == [
        {
            "role": "user",
            "content": "What is $\\frac{1}{2}+\\frac{1}{4}$?\n Please reason step by step, "
            "and put your final answer within \\boxed{}.",
        }
    ]
    assert item.answer == {"official": OWN_ROW["solution"], "clean": "\\boxed{\\frac{3}{4}}"}


PROMPT = "P\n Please reason step by step, and put your final answer within \\boxed{}."
ADDRESS = "https://example.org/wiki/index.php/{}_AIME_I_Problems/Problem_{}"


@pytest.mark.parametrize(
    ("row", "id", "official", "clean"),
    [
        # as in the data set, as the official code's file has it, and as in a common other file
        ({"id": 60, "answer": "33", "url": ADDRESS.format(2024, 4)}, "2024_AIME_I_Problems/Problem_4", "33", "33"),
        ({"id": 61, "answer": "104", "url": ADDRESS.format(2024, 5)}, "2024_AIME_I_Problems/Problem_5", "104.", "104"),
        (
            {"solution": "\\boxed{104.}", "year": ADDRESS.format(2024, 5)},
            "2024_AIME_I_Problems/Problem_5",
            "104.",
            "104",
        ),
        (
            {"solution": "\\boxed{073}", "year": ADDRESS.format(2024, 1)},
            "2024_AIME_I_Problems/Problem_1",
            "073",
            "073",
        ),
        ({"solution": "\\boxed{045}", "year": 2024}, "0", "045", "045"),
        ({"id": "aime24-0", "reference_solution": "$\\boxed{1}$", "expected_answer": "73"}, "aime24-0", "73", "73"),
    ],
)
def test_every_layout_of_aime_gives_the_same_prompt(
    tmp_path: Path, row: dict, id: str, official: str, clean: str
) -> None:
    (item,) = read("aime24", write_lines(tmp_path / "rows.jsonl", {"problem": "P", **row}))
    answer = {"official": f"\\boxed{{{official}}}", "clean": f"\\boxed{{{clean}}}"}
    assert item == Item(id, [{"role": "user", "content": PROMPT}], answer)


def test_only_the_problems_of_2024_are_taken(tmp_path: Path) -> None:
    rows = [
        {"id": n, "problem": "P", "solution": "", "answer": str(n), "url": ADDRESS.format(year, n)}
        for n, year in enumerate([2022, 2023, 2024, 2024])
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000.parquet")
    found = [item.id for item in read("aime24", tmp_path / "train-00000.parquet")]
    assert found == ["2024_AIME_I_Problems/Problem_2", "2024_AIME_I_Problems/Problem_3"]
    older = [{"problem": "P", "solution": "\\boxed{1}", "year": year} for year in ("1997", "2024", "2023")]
    assert [item.id for item in read("aime24", write_lines(tmp_path / "all.jsonl", *older))] == ["1"]
    with pytest.raises(UserError, match="no problem of 2024; give a file"):
        read("aime24", write_lines(tmp_path / "old.jsonl", older[0]))


def test_the_answer_104_is_officially_wrong_where_its_box_has_a_full_stop(tmp_path: Path) -> None:
    row = {"problem": "P", "solution": "\\boxed{104.}", "year": ADDRESS.format(2024, 5)}
    (item,) = read("aime24", write_lines(tmp_path / "rows.jsonl", row))
    assert graded(item, Response("\\boxed{104}")) == [(WRONG, "104"), (RIGHT, "104")]
    assert [value for value, _ in graded(item, Response("\\boxed{104.}"))] == [RIGHT, WRONG]


def test_rows_of_another_form_are_an_error_that_names_the_row(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 2: neither answer nor expected_answer, nor a box in its solution"):
        read("aime24", write_lines(tmp_path / "a.jsonl", {"problem": "P", "answer": 1}, {"problem": "P"}))
    with pytest.raises(UserError, match="row 1: no subject, unique_id"):
        read("math500", write_lines(tmp_path / "b.jsonl", {"problem": "P", "solution": "S", "answer": "1"}))
    with pytest.raises(UserError, match="c.jsonl, row 2: solution is a whole number; it must be a text"):
        read("math500", write_lines(tmp_path / "c.jsonl", OWN_ROW, OWN_ROW | {"solution": 5}))
    with pytest.raises(UserError, match="row 1: problem is a list; it must be a text"):
        read("aime24", write_lines(tmp_path / "d.jsonl", {"problem": ["P"], "answer": 1}))


@pytest.mark.parametrize("name", ["math500", "aime24"])
def test_a_response_has_time_for_all_that_may_take_its_limit(name: str) -> None:
    readings, comparisons, written = 2, 4, 2  # by each protocol; the right answer is read as well
    assert get(name).score_seconds > 2 * mathematics.SECONDS * (readings + comparisons + written)


@pytest.mark.parametrize(
    ("gold", "text", "official", "clean"),
    [
        ("5", "<think>a</think>So \\boxed{5}.", (RIGHT, "5"), (RIGHT, "5")),
        ("5", "So \\boxed{5}.", (RIGHT, "5"), (RIGHT, "5")),  # without thinking
        ("5", "<think>\\boxed{5}</think>\\boxed{6}", (WRONG, "6"), (WRONG, "6")),
        ("5", "<think>\\boxed{5}</think>I do not know.", (RIGHT, "5"), (WRONG, None)),  # a thought only
        ("5", "<think>maybe \\boxed{5}, let me check", (RIGHT, "5"), (WRONG, None)),  # no close tag
        ("5", "<think>maybe 4 or 5", (RIGHT, "5"), (WRONG, None)),  # not even a box
        ("5", "<think>a</think>b</think>\\boxed{5}", (RIGHT, "5"), (RIGHT, "5")),
        # Two boxes that are close become a pair, where "or" may be a part of "for".
        ("5", "\\boxed{4} is too small for this, so \\boxed{5}", (WRONG, "{4, 5}"), (RIGHT, "5")),
        ("5", "\\boxed{5} or \\boxed{6}", (WRONG, "{5, 6}"), (WRONG, "6")),
        ("5", "$x=\\boxed{4}$. Wait! I was wrong. $\\boxed{5}$", (RIGHT, "5"), (RIGHT, "5")),
        ("5", "\\boxed{5}. To check: $2+2=4$", (RIGHT, "5"), (RIGHT, "5")),
        ("5", "The final answer is $7$. I hope it is correct. \\boxed{5}", (WRONG, "7"), (RIGHT, "5")),
        ("5", "The answer is 5.", (RIGHT, "5"), (RIGHT, "5")),
        ("5", "We get $2+3=5$", (RIGHT, "Eq(2 + 3, 5)"), (RIGHT, "Eq(2 + 3, 5)")),
        ("5", "\\boxed{", (WRONG, None), (WRONG, None)),
        ("5", "\\boxed{}", (WRONG, None), (WRONG, None)),
        ("5", "no idea", (WRONG, None), (WRONG, None)),
        ("5", "", (WRONG, None), (WRONG, None)),
        ("\\frac{3}{4}", "\\boxed{\\dfrac{3}{4}}", (RIGHT, "3/4"), (RIGHT, "3/4")),
        ("\\frac{3}{4}", "\\boxed{\\frac34}", (RIGHT, "3/4"), (RIGHT, "3/4")),
        ("\\frac{3}{4}", "\\boxed{0.75}", (RIGHT, "0.750000000000000"), (RIGHT, "0.750000000000000")),
        ("\\frac{3}{4}", "\\boxed{3/4}", (RIGHT, "3/4"), (RIGHT, "3/4")),
        ("\\frac{\\sqrt{2}}{2}", "$$\\boxed{\\frac{1}{\\sqrt{2}}}$$", (RIGHT, "1/sqrt(2)"), (RIGHT, "1/sqrt(2)")),
        ("10", "\\boxed{10\\text{ cm}}", (RIGHT, "10"), (RIGHT, "10")),
        ("10", "\\boxed{10^\\circ}", (RIGHT, "10"), (RIGHT, "10")),
        ("10", "\\boxed{\\$10}", (RIGHT, "10"), (RIGHT, "10")),
        ("1000", "\\boxed{1,\\!000}", (RIGHT, "1000"), (RIGHT, "1000")),
        ("[1,2)", "\\boxed{[1, 2)}", (RIGHT, "Interval.Ropen(1, 2)"), (RIGHT, "Interval.Ropen(1, 2)")),
        ("[1,2)", "\\boxed{(1, 2)}", (WRONG, "Interval.open(1, 2)"), (WRONG, "Interval.open(1, 2)")),
        ("1,-2", "\\boxed{-2, 1}", (RIGHT, "{-2, 1}"), (RIGHT, "{-2, 1}")),
        ("\\text{Evelyn}", "\\boxed{Evelyn}", (RIGHT, "E*e*l*n*v*y"), (RIGHT, "E*e*l*n*v*y")),
        ("073", "\\boxed{73}", (RIGHT, "73"), (RIGHT, "73")),
    ],
)
def test_the_answer_that_each_protocol_reads(gold: str, text: str, official: tuple, clean: tuple) -> None:
    assert verdicts(gold, text) == [official, clean]


def test_a_cut_off_response_is_scored_as_it_is_officially_and_is_wrong_under_clean() -> None:
    assert verdicts("5", "<think>a</think>\\boxed{5} and furthermore", finished=False) == [(RIGHT, "5"), (WRONG, None)]


@pytest.mark.parametrize(
    "text",
    [
        "\\boxed{9^{9^{9^9}}}",
        "\\boxed{" + "9" * 5000 + "}",
        "\\boxed{" + "{" * 50_000 + "}" * 50_000 + "}",
        "\\boxed{" * 14_000,
        "\\boxed{" + "\\frac{1}{" * 2000 + "1" + "}" * 2000 + "}",
        "$" * 100_001,
        "\x00\\boxed{\x00}\U0001f600",
    ],
    ids=["tower", "digits", "braces", "boxes", "fractions", "dollars", "characters"],
)
def test_hostile_texts_are_wrong_and_never_an_exception(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mathematics, "SECONDS", 0.5)  # tests need not wait for the real limit
    for value, answer in verdicts("5", text):
        assert value == WRONG
        assert answer is None or len(answer) <= 1000


PIECES = ["$", "$$", "\\[", "\\]", "\\(", "\\)", " [", "] ", "[", "\\boxed{", "\\boxed{5}", "}", "x", "\n", " ", ","]
PIECES += ["and", "\\$", "\\", "7", "%"]


def test_formulas_with_a_box_are_found_as_the_library_finds_them() -> None:
    own = [pattern for patterns, _ in _patterns() for pattern, _ in patterns if isinstance(pattern, BoxedFormulas)]
    (ours,) = own
    draw = random.Random(0)
    texts = ["".join(draw.choices(PIECES, k=draw.randint(1, 40))) for _ in range(6000)]
    if REAL["math500"].exists():
        solutions = [item.answer["official"] for item in read("math500", REAL["math500"])]
        texts += solutions + ["\n".join(draw.sample(solutions, 10)) for _ in range(50)]
    found = 0
    for text in texts:
        spans = [match.regs for match in ours.pattern.finditer(text)]
        assert [match.regs for match in ours.finditer(text)] == spans, text
        found += len(spans)
    assert found > 1000


def test_the_parse_is_that_of_the_library() -> None:
    import math_verify

    draw = random.Random(1)
    for item in real_items("math500")[::5]:
        solution = item.answer["official"]
        for text in (solution, solution[: draw.randrange(len(solution))], solution.replace("\\boxed", "")):
            assert str(_parse(text)) == str(math_verify.parse(text)), item.id


def test_another_thread_is_refused_instead_of_scoring_everything_as_wrong() -> None:
    caught: list[BaseException] = []

    def attempt() -> None:
        try:
            verdicts("5", "\\boxed{5}")
        except RuntimeError as error:
            caught.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert "main thread" in str(caught[0])


def test_every_reference_solution_of_math500_is_right() -> None:
    items = real_items("math500")
    assert len(items) == get("math500").size == len({item.id for item in items})
    for item in items:
        for text in (item.answer["official"], f"<think>\nHm.\n</think>\n\nTherefore: {item.answer['clean']}"):
            assert [value for value, _ in graded(item, Response(text))] == [RIGHT, RIGHT], item.id


def test_the_answer_of_another_problem_is_wrong_for_every_problem_of_math500() -> None:
    items = real_items("math500")
    for item, other in zip(items, items[1:] + items[:1], strict=True):
        wrong_too = [graded(item, Response(other.answer["clean"]))[n][0] == WRONG for n in (0, 1)]
        assert all(wrong_too) or other.answer["clean"].replace("x=", "") == item.answer["clean"], item.id
        inside = item.answer["clean"].removeprefix("\\boxed{")[:-1]
        for wrong in ("-987654321", f"{inside}+1"):
            text = f"<think>\n{item.answer['clean']}\n</think>\n\n**Answer:** $\\boxed{{{wrong}}}$"
            assert [value for value, _ in graded(item, Response(text))] == [WRONG, WRONG], (item.id, wrong)


def test_the_answers_of_aime24_are_right_and_their_neighbours_wrong() -> None:
    items = real_items("aime24")
    assert len(items) == get("aime24").size == len({item.id for item in items})
    for item in items:
        answer = int(item.answer["clean"].removeprefix("\\boxed{")[:-1])
        for given, value in ((f"{answer}", RIGHT), (f"{answer:03}", RIGHT), (f"{answer + 1}", WRONG), ("-1", WRONG)):
            found = graded(item, Response(f"<think>\nHm.\n</think>\n\nThus $\\boxed{{{given}}}$."))
            assert [one for one, _ in found] == [value, value], (item.id, given)
