"""The questions of a data set that is built, put to its teacher: no benchmark to choose, so not among their names.

A response is right if what follows its thinking is, and it ended by itself: both protocols are the clean one.
"""

from __future__ import annotations

from collections.abc import Mapping

from reprokit.benchmarks.grading import mathematics, puzzles
from reprokit.benchmarks.interface import Benchmark, Item, Protocol, Reply, Response, Score
from reprokit.errors import UserError
from reprokit.recipe.registry import QUESTIONS


def _items(count: int, seed: int) -> list[Item]:
    raise UserError(f"{QUESTIONS} are the questions of a data set: python -m reprokit.data.build makes them")


def _score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    grade = puzzles.score if "numbers" in item.answer else mathematics.score
    return grade(item, response, "clean", replies)


BENCHMARK = Benchmark(
    name=QUESTIONS,
    title="Questions of a data set",
    size=1,
    make=_items,
    score=_score,
    score_seconds=mathematics.SCORE_SECONDS,
)
