r"""GPQA-Diamond and MMLU-Pro: prompts, the letters that both protocols read, and which rows count."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reprokit.benchmarks import get
from reprokit.benchmarks.interface import PROTOCOLS, Item, Response
from reprokit.errors import UserError

GPQA_COLUMNS = ["Question", "Correct Answer", "Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3"]


def read(name: str, *paths: Path) -> list[Item]:
    reader = get(name).read
    assert reader is not None
    return reader(paths)


def write_csv(path: Path, *rows: dict[str, str]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_lines(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def letters(name: str, answer: dict[str, Any], text: str, finished: bool = True) -> list[str | None]:
    """What the official and the clean protocol read; checks that exactly the right letter scores."""
    found = []
    for protocol in PROTOCOLS:
        score = get(name).score(Item("x", [], answer), Response(text, finished), protocol, {})
        assert score.values == {"accuracy": float(score.answer == answer["letter"])}
        found.append(score.answer)
    return found


GPQA_ROW = dict(
    zip(GPQA_COLUMNS, ["Which gas do plants take up, mostly?\nName it.", "CO2", "N2", "O2 \n", "Ar"], strict=True)
)


def test_gpqa_prompt(tmp_path: Path) -> None:
    row = GPQA_ROW | {"Record ID": "rec1", "High-level domain": "Biology"}
    (item,) = read("gpqa_diamond", write_csv(tmp_path / "gpqa_diamond.csv", row))
    assert item.messages == [
        {
            "role": "user",
            "content": "Problem: Which gas do plants take up, mostly?\nName it.\n"
            "Options: A) CO2, B) Ar, C) O2 \n, D) N2\n"
            "Please reason step by step and return your final answer within \\boxed{}. "
            "Only include the letter choice (A, B, C, or D) as your final answer.",
        }
    ]
    assert (item.id, item.group, item.answer) == ("rec1", "Biology", {"letter": "A"})


def test_the_order_of_gpqa_options_is_fixed_and_spreads_the_right_answer(tmp_path: Path) -> None:
    rows = [GPQA_ROW | {"Question": f"Question {n}?"} for n in range(400)]
    path = write_csv(tmp_path / "gpqa_diamond.csv", *rows)
    items = read("gpqa_diamond", path)
    assert items == read("gpqa_diamond", path) and len({item.id for item in items}) == 400
    for item in items:
        assert f"{item.answer['letter']}) CO2" in item.messages[0]["content"]
    counts = Counter(item.answer["letter"] for item in items)
    assert set(counts) == set("ABCD") and min(counts.values()) > 70  # 100 each, and 9 is a standard deviation
    assert [item.answer["letter"] for item in items[:12]] == list("ADDBDACBDCCA")


@pytest.mark.parametrize(
    ("text", "official", "clean"),
    [
        ("<think>a</think>So \\boxed{B}.", "B", "B"),
        ("\\boxed{ B }", "B", "B"),
        ("\\boxed{B.}", "B", "B"),
        ("\\boxed{b}", "B", "B"),
        ("\\boxed{\\text{B}}", None, "B"),
        ("\\boxed{\\textbf{(B)}}", None, "B"),
        ("\\boxed{\\mathrm{B}}", None, "B"),
        ("\\boxed{(B)}", None, "B"),
        ("\\boxed{B) 5 cm}", None, "B"),
        ("\\boxed{B: \\frac{1}{2}}", None, "B"),
        ("\\boxed{B\n}", None, "B"),
        ("\\boxed{\\text{Option B}}", None, "B"),
        ("\\boxed{The correct answer is B}", "B", "B"),
        ("\\boxed{}", None, None),
        ("\\boxed{E}", None, None),
        ("\\boxed{A and B}", None, None),
        ("\\boxed{(A) or (B)}", None, None),
        ("\\boxed{A} no, \\boxed{B}", "B", "B"),
        ("\\boxed{A} no, \\boxed{B", None, "A"),  # the last box is not closed
        ("<think>\\boxed{A}</think>\\boxed{B}", "B", "B"),
        ("<think>\\boxed{A}</think>The answer is B.", "A", "B"),
        ("<think>\\boxed{A}", "A", None),  # no close tag
        ("<think>Perhaps the answer is C. Let me see", "C", None),
        ("<think>The answer is clearly the second", "C", None),  # the first letter of a word
        ("The answer is clearly the second", "C", None),
        ("The answer is D. No: the answer is B.", "D", "B"),  # the first statement, and the last
        ("**Answer:** (B)", None, "B"),
        ("Answer: B", "B", "B"),
        ("The answer is **B**.", None, "B"),
        ("The answer is $\\text{B}$.", None, "B"),
        ("I choose option B", "B", "B"),
        ("Option B is correct, as option A is not.", "B", "B"),
        ("We select carefully.\n\nB", "C", "B"),
        ("hence\n\n(B)", None, "B"),
        ("The answer is A because it is.", "A", "A"),
        ("The answer is A, I believe", "A", "A"),
        ("The answer is A\n\nwhich was asked", "A", "A"),
        ("Answer: A wire", "A", None),
        ("I select A good one", "A", None),
        ("B", "B", "B"),
        ("B/.", "B", None),
        ("B./", None, "B"),
        ("\\boxed{42}. The answer is B", None, "B"),
        ("It is 5 cm.", None, None),
        ("", None, None),
    ],
)
def test_the_letter_read_off_an_answer_to_gpqa(text: str, official: str | None, clean: str | None) -> None:
    assert letters("gpqa_diamond", {"letter": "B"}, text) == [official, clean]


def mmlu_row(id: int, category: str = "physics", **others: Any) -> dict[str, Any]:
    options = [f"{n} m/s" for n in range(10)]
    row = {"question_id": id, "question": f"How fast is car {id}?", "options": options, "answer": "J"}
    return row | {"answer_index": 9, "cot_content": "", "category": category, "src": "own"} | others


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_mmlu_pro_prompt(tmp_path: Path) -> None:
    rows = [mmlu_row(7), mmlu_row(8, "law", options=["yes", "no", "N/A"], answer="B")]
    first, second = read("mmlu_pro", write_parquet(tmp_path / "1k_test.parquet", rows))
    instruction = (
        "Please reason step by step and return your final answer within \\boxed{}. "
        "Only include the letter choice (A, B, C, D, E, F, G, H, I or J) as your final answer."
    )
    lines = [
        "Question:",
        "How fast is car 7?",
        "Options:",
        "A. 0 m/s",
        "B. 1 m/s",
        "C. 2 m/s",
        "D. 3 m/s",
        "E. 4 m/s",
        "F. 5 m/s",
        "G. 6 m/s",
        "H. 7 m/s",
        "I. 8 m/s",
        "J. 9 m/s",
    ]
    assert first == Item(
        "7",
        [{"role": "user", "content": "\n".join(lines) + "\n" + instruction}],
        {"letter": "J", "options": 10},
        group="physics",
        cluster="7",
    )
    short = "Question:\nHow fast is car 8?\nOptions:\nA. yes\nB. no\nC. N/A\n" + instruction
    assert second.messages == [{"role": "user", "content": short}] and second.group == "law"


def test_repeated_rows_of_a_short_file_stay_and_count_once_under_clean(tmp_path: Path) -> None:
    rows = [mmlu_row(id) for id in (5, 6, 5, 5)]
    items = read("mmlu_pro", write_parquet(tmp_path / "1k_test.parquet", rows))
    assert [item.id for item in items] == ["5", "6", "5#2", "5#3"]
    assert [item.cluster for item in items] == ["5", "6", "5", "5"]
    assert get("mmlu_pro").weights(items, "official", "accuracy") == [1, 1, 1, 1]
    assert get("mmlu_pro").weights(items, "clean", "accuracy") == [1, 1, 0, 0]
    assert get("mmlu_pro").weights(items[2:], "clean", "accuracy") == [1, 0]


def test_a_thousand_rows_of_a_long_file_are_drawn_evenly_and_the_same_every_time(tmp_path: Path) -> None:
    sizes = [40, *range(100, 1400, 100)]  # of 14 categories
    rows = [mmlu_row(1000 * n + i, f"category {n}") for n, size in enumerate(sizes) for i in range(size)]
    items = read("mmlu_pro", write_parquet(tmp_path / "test-0.parquet", rows))
    counts = Counter(item.group for item in items)
    assert len(items) == len({item.id for item in items}) == 1000
    assert counts.pop("category 0") == 40  # all of them; the others share what is left
    assert sorted(set(counts.values())) == [73, 74]
    assert items == read("mmlu_pro", write_parquet(tmp_path / "test-1.parquet", rows[::-1]))
    halves = [write_parquet(tmp_path / f"half-{n}.parquet", rows[n::2]) for n in (0, 1)]
    assert items == read("mmlu_pro", *halves)
    assert set(Counter(item.group for item in items[:140]).values()) == {10}


@pytest.mark.parametrize(
    ("text", "official", "clean"),
    [
        ("<think>a</think>So \\boxed{B}.", "B", "B"),
        ("\\boxed{\\text{B}}", "B", "B"),
        ("\\boxed{(B)}", None, "B"),
        ("\\boxed{b}", None, "B"),
        ("\\boxed{\\textbf{B}}", None, "B"),
        ("\\boxed{B. 1 m/s}", None, "B"),
        ("\\boxed{X}", "X", None),
        ("\\boxed{A} no, \\boxed{B}", "A", "B"),  # the first match, and the last
        ("<think>Maybe the answer is A. No.</think>\\boxed{B}", "A", "B"),
        ("<think>the answer is (C)</think>\\boxed{B}", "C", "B"),
        ("<think>the answer is not A</think>\\boxed{B}", "B", "B"),
        ("<think>the answer is Clearly B</think>\\boxed{B}", "C", "B"),  # the first letter of a word
        ("<think>the answer is clearly D</think>\\boxed{B}", "B", "B"),  # but not of a lower-case one
        ("<think>the answer is a</think>\\boxed{B}", "B", "B"),
        ("<think>\\boxed{B}", "B", None),  # no close tag
        ("<think>\\boxed{B}</think>", "B", None),
        ("The Answer is B", None, "B"),
        ("Answer: B", None, "B"),
        ("**The answer is B.**", "B", "B"),
        ("the answer is B or D", "B", None),
        ("The answer is I believe B", "I", None),
        ("The answer is I'd say B", "I", None),
        ("The answer is (I) as said", "I", "I"),
        ("The answer is I.", "I", "I"),
        ("The answer is **I** because", None, "I"),
        ("I think so", None, None),
        ("none", None, None),
        ("", None, None),
    ],
)
def test_the_letter_read_off_an_answer_to_mmlu_pro(text: str, official: str | None, clean: str | None) -> None:
    assert letters("mmlu_pro", {"letter": "B", "options": 10}, text) == [official, clean]


def test_a_letter_beyond_the_last_option_is_no_clean_answer() -> None:
    assert letters("mmlu_pro", {"letter": "B", "options": 4}, "\\boxed{E}") == ["E", None]


@pytest.mark.parametrize("name", ["gpqa_diamond", "mmlu_pro"])
def test_a_cut_off_response_is_scored_as_it_is_officially_and_is_wrong_under_clean(name: str) -> None:
    answer = {"letter": "B", "options": 10}
    assert letters(name, answer, "<think>a</think>\\boxed{B}", finished=False) == ["B", None]


@pytest.mark.parametrize("name", ["gpqa_diamond", "mmlu_pro"])
@pytest.mark.parametrize(
    "text",
    ["\\boxed{" * 30_000, "{" * 200_000, "answer" + " " * 200_000, "A " * 100_000, "\\boxed{" + "(" * 200_000 + "}"],
    ids=["boxes", "braces", "blanks", "letters", "parentheses"],
)
def test_hostile_texts_have_no_answer(name: str, text: str) -> None:
    assert letters(name, {"letter": "B", "options": 10}, text) == [None, None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "K"}, "row 2: answer 'K'; valid: one of A, B, .*J"),
        ({"answer": "AB"}, "row 2: answer 'AB'"),
        ({"options": [], "answer": "A"}, r"row 2: options must be a list of 1 to 16 texts, not \[\]"),
        ({"category": None}, "row 2: no category"),
        ({"answer": 3}, "row 2: answer is a whole number; it must be a text"),
        ({"question": 1.5}, "row 2: question is a number; it must be a text"),
        ({"options": "A B"}, "row 2: options is a text; it must be a list"),
        ({"options": [1, 2], "answer": "A"}, r"row 2: options must be a list of 1 to 16 texts, not \[1, 2\]"),
        ({"question_id": 1.5}, "row 2: question_id is a number; it must be a whole number or a text"),
    ],
)
def test_a_row_of_mmlu_pro_that_cannot_be_asked_is_an_error(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read("mmlu_pro", write_lines(tmp_path / "test.jsonl", mmlu_row(1), mmlu_row(2) | change))


def test_a_gpqa_file_without_the_options_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="row 1: no Incorrect Answer 3"):
        read("gpqa_diamond", write_csv(tmp_path / "x.csv", {key: "x" for key in GPQA_COLUMNS[:-1]}))


def test_a_gpqa_file_with_other_types(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="x.jsonl, row 1: Question is an object; it must be a text"):
        read("gpqa_diamond", write_lines(tmp_path / "x.jsonl", GPQA_ROW | {"Question": {"text": "Why?"}}))
    numbered = GPQA_ROW | {"Record ID": 5, "High-level domain": 6}
    (item,) = read("gpqa_diamond", write_lines(tmp_path / "x.jsonl", numbered))
    assert (item.id, item.group) == ("5", "6")
