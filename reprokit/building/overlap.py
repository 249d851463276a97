"""Overlap of training questions with the problems of evaluation sets, by n-grams of words.

n = 13 as for GPT-3 (Brown et al., 2020, Appendix C); a text with fewer words counts as one n-gram. Overlap is reported;
nothing is removed, as in the paper.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

import msgspec

from reprokit.benchmarks.grading.mathematics import INSTRUCTION
from reprokit.benchmarks.interface import Item
from reprokit.data.prompts import BOX_INSTRUCTION

WORDS = 13
_EXAMPLES = 5


class Overlap(msgspec.Struct, kw_only=True):
    """Rows with an n-gram of a problem of one evaluation set, and problems that have one in common with a row.

    `examples`: index of the row, name of the problem.
    """

    items: int
    rows: int
    items_found: int
    examples: list[tuple[int, str]]


def overlap(questions: Sequence[str], items: Sequence[Item]) -> Overlap:
    """Compare the questions of all rows with the problems of an evaluation set."""
    holders: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for item in items:
        said = " ".join(turn["content"] for turn in item.messages)
        for gram in _grams(said.removesuffix(INSTRUCTION).removesuffix(BOX_INSTRUCTION)):
            holders[gram].add(item.id)
    found: set[str] = set()
    rows = []
    for index, question in enumerate(questions):
        shared = {item for gram in _grams(question) for item in holders.get(gram, ())}
        if shared:
            rows.append((index, min(shared)))
            found |= shared
    return Overlap(items=len(items), rows=len(rows), items_found=len(found), examples=rows[:_EXAMPLES])


def _grams(text: str) -> Iterator[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    for start in range(max(1, len(words) - WORDS + 1)) if words else ():
        yield tuple(words[start : start + WORDS])
