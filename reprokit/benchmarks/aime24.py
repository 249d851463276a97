"""AIME24: the 30 problems of AIME 2024 I and II, whose answers are whole numbers from 0 to 999.

The official code reads a conversion of AI-MO/aimo-validation-aime that has kept the answers only, as boxes. Its rows
(problem, solution, and in `year` the address), those of the data set itself, and rows with an `expected_answer` are
understood. In the conversion one answer is `104.`, with a full stop: math-verify takes that for a text, and so 104 for
wrong. `official` keeps this for the first two, whose problems are then at most 29 of 30 right; `clean` does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reprokit.benchmarks.grading.answers import last_box
from reprokit.benchmarks.grading.files import read_rows
from reprokit.benchmarks.grading.mathematics import SCORE_SECONDS, in_box, problem, score
from reprokit.benchmarks.interface import Benchmark, Item, Upstream
from reprokit.errors import UserError

ANSWERS = ("answer", "expected_answer")
FULL_STOP = "2024_AIME_I_Problems/Problem_5"


def _read(paths: Sequence[Path]) -> list[Item]:
    items = []
    for path in paths:
        for number, row in enumerate(read_rows(path, {"problem": str})):
            source = str(row.get("url") or row.get("year") or "2024")
            if "2024" in source:
                name = "/".join(source.split("/")[-2:]) if "/" in source else str(row.get("id", number))
                answer = _answer(path, number, row)
                official = in_box("104." if name == FULL_STOP else answer)
                items.append(problem(name, row["problem"], official=official, clean=in_box(answer.rstrip("."))))
    if not items:
        raise UserError(f"{', '.join(map(str, paths))}: no problem of 2024; give a file that has those of AIME 2024")
    return items


def _answer(path: Path, number: int, row: dict[str, Any]) -> str:
    given = [row[column] for column in ANSWERS if row.get(column) is not None]
    answer = str(given[0]) if given else last_box(str(row.get("solution", "")))
    if answer is None:
        raise UserError(f"{path}, row {number + 1}: neither {' nor '.join(ANSWERS)}, nor a box in its solution")
    return answer


BENCHMARK = Benchmark(
    name="aime24",
    title="AIME24",
    size=30,
    read=_read,
    upstream=Upstream(
        "AI-MO/aimo-validation-aime",
        ("data/train-*.parquet",),
        revision="8c6be017548b0fe2eb9fdf2239fca99700b9bccf",
    ),
    score=score,
    votes=True,
    score_seconds=SCORE_SECONDS,
)
