"""GPQA-Diamond: graduate-level questions with four options (Rein et al., 2023). The data is gated; keep it private."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reprokit.benchmarks.grading.choices import LETTERS, final_letter
from reprokit.benchmarks.grading.files import read_rows
from reprokit.benchmarks.interface import Benchmark, Item, Protocol, Reply, Response, Score, Upstream

CORRECT = "Correct Answer"
WRONG = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")
INSTRUCTION = (
    "Please reason step by step and return your final answer within \\boxed{}. "
    "Only include the letter choice (A, B, C, or D) as your final answer."
)

# Without regard to case, so that the letter may be the first one of a word; the first of them that is found counts.
_STATED = [
    re.compile(pattern, re.IGNORECASE)
    for pattern in (
        r"(?:correct answer|right answer|answer)\s*(?:is|:)\s*([A-D])",
        r"(?:choose|select|pick)\s*(?:option)?\s*([A-D])",
        r"(?:option|choice)\s*([A-D])\s*(?:is correct|is right)",
        r"\b([A-D])\s*(?:is correct|is right|is the answer)",
    )
]


def _read(paths: Sequence[Path]) -> list[Item]:
    columns = dict.fromkeys(("Question", CORRECT, *WRONG), str)
    return [_item(row) for path in paths for row in read_rows(path, columns)]


def _item(row: dict[str, Any]) -> Item:
    question = row["Question"]
    digest = hashlib.sha256(question.encode()).hexdigest()
    order = [CORRECT, *WRONG]
    # The official code takes Python's `hash`, which differs from run to run: this is one of the orders it may draw.
    random.Random(42 + int(digest, 16) % 10000).shuffle(order)
    options = ", ".join(f"{letter}) {row[column]}" for letter, column in zip(LETTERS, order, strict=False))
    return Item(
        id=str(row.get("Record ID") or digest[:16]),
        messages=[{"role": "user", "content": f"Problem: {question}\nOptions: {options}\n{INSTRUCTION}"}],
        answer={"letter": LETTERS[order.index(CORRECT)]},
        group=str(row.get("High-level domain") or ""),
    )


def _official_letter(text: str) -> str | None:
    """As the official code reads it: off the last box, or the whole response if there is none or it is not closed."""
    box = _last_closed_box(text)
    if box is not None:
        line = re.search(r"\\boxed\{(.*)\}", box)
        text = line[1] if line else box  # a box of several lines keeps its command, and so holds no single letter
    for pattern in _STATED:
        if match := pattern.search(text):
            return match[1].upper()
    letter = text.rstrip(".").rstrip("/").strip().upper()
    return letter if letter in tuple("ABCD") else None


def _last_closed_box(text: str) -> str | None:
    start = text.rfind("\\boxed{")
    depth = 0
    for brace in re.finditer(r"[{}]", text[start:]) if start >= 0 else ():
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start : start + brace.end()]
    return None


def _score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    letter = _official_letter(response.text) if protocol == "official" else final_letter(response, 4)
    return Score.of(letter == item.answer["letter"], letter)


BENCHMARK = Benchmark(
    name="gpqa_diamond",
    title="GPQA-Diamond",
    size=198,
    read=_read,
    upstream=Upstream("Idavidrein/gpqa", ("gpqa_diamond.csv",), gated=True),
    score=_score,
    votes=True,
)
