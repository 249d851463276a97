"""What a benchmark is: items with their prompts, and a score for a generated text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec


class Item(msgspec.Struct):
    """One problem: the turns to send, and plain data with which `score` judges an answer."""

    id: str  # unique within the benchmark
    messages: list[dict[str, str]]  # of role and content
    answer: dict[str, Any]


class Score(msgspec.Struct):
    """Judgement of one generated text: 0 is wrong, 1 is right."""

    value: float
    answer: str | None  # as it stood in the text; None if there was none


@dataclass(frozen=True)
class Benchmark:
    """One benchmark.

    `items(count, seed)` gives `count` problems, or `size` of them for None; the same arguments give the same problems,
    and a smaller count a prefix. It raises UserError for more problems than there are. `score(item, text)` judges
    a response, whatever text it holds, and never raises.
    """

    name: str
    title: str  # as it appears in figures
    size: int
    make: Callable[[int, int], list[Item]]
    score: Callable[[Item, str], Score]

    def items(self, count: int | None = None, seed: int = 0) -> list[Item]:
        """The first `count` problems, or `size` of them for None."""
        return self.make(self.size if count is None else count, seed)
