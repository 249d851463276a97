"""MATH500: competition problems with solutions (Hendrycks et al., 2021; the 500 of Lightman et al., 2023).

Officially the right answer is read off the whole reference solution, here under `clean` off its answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from reprokit.benchmarks.grading.files import read_rows
from reprokit.benchmarks.grading.mathematics import SCORE_SECONDS, in_box, problem, score
from reprokit.benchmarks.interface import Benchmark, Item, Upstream

COLUMNS = dict.fromkeys(("problem", "solution", "answer", "subject", "unique_id"), str)


def _read(paths: Sequence[Path]) -> list[Item]:
    rows = [row for path in paths for row in read_rows(path, COLUMNS)]
    return [
        problem(
            id=row["unique_id"],
            text=row["problem"],
            official=row["solution"] if "boxed" in row["solution"] else in_box(row["solution"]),
            clean=in_box(row["answer"]),
            group=row["subject"],
        )
        for row in rows
    ]


BENCHMARK = Benchmark(
    name="math500",
    title="MATH500",
    size=500,
    read=_read,
    upstream=Upstream("HuggingFaceH4/MATH-500", ("test.jsonl",)),
    score=score,
    votes=True,
    score_seconds=SCORE_SECONDS,
)
