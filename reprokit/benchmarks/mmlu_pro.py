"""MMLU-Pro, 1,000 rows: questions of 14 categories with up to ten options (Wang et al., 2024).

A file of at most 1,000 rows is taken as it is, since the file that the official code most likely read has 1,000 rows
with repeats: 613 questions. `official` counts every row, `clean` each question once. From a longer file, such as the
12,032 rows upstream, 1,000 rows are drawn without replacement by a rule of our own, as the paper's draw is not known.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, islice, zip_longest
from pathlib import Path
from typing import Any

from reprokit.benchmarks.grading.choices import LETTERS, final_letter, option_lines
from reprokit.benchmarks.grading.files import read_rows
from reprokit.benchmarks.interface import Benchmark, Item, Protocol, Reply, Response, Score, Upstream
from reprokit.errors import UserError

SIZE = 1000
COLUMNS = {"question_id": int | str, "question": str, "options": list, "answer": str, "category": str}
INSTRUCTION = (
    "Please reason step by step and return your final answer within \\boxed{}. "
    "Only include the letter choice (A, B, C, D, E, F, G, H, I or J) as your final answer."
)
_OFFICIAL = re.compile(r"(?:answer is \(?([ABCDEFGHIJ])\)?|\\boxed\{(?:\\text\{)?([A-Z])(?:\})?\})")


def _read(paths: Sequence[Path]) -> list[Item]:
    rows = []
    for path in paths:
        for number, row in enumerate(read_rows(path, COLUMNS), start=1):
            _check(path, number, row)
            rows.append(row)
    seen: Counter[str] = Counter()
    return [_item(row, seen) for row in (rows if len(rows) <= SIZE else _drawn(rows))]


def _check(path: Path, number: int, row: dict[str, Any]) -> None:
    options, answer = row["options"], row["answer"]
    if not 0 < len(options) <= len(LETTERS) or not all(isinstance(option, str) for option in options):
        raise UserError(f"{path}, row {number}: options must be a list of 1 to {len(LETTERS)} texts, not {options!r}")
    if answer not in LETTERS[: len(options)] or len(answer) != 1:
        raise UserError(f"{path}, row {number}: answer {answer!r}; valid: one of {', '.join(LETTERS[: len(options)])}")


def _drawn(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """1,000 of the rows, without replacement: the categories take turns, in an order drawn once, each giving the next
    of its rows in an order of its own. Of 14 large ones each so gives 71 rows and six of them one more; a prefix is
    as even. The order of the rows in the file does not matter.
    """
    by_category: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: str(row["question_id"])):
        by_category[row["category"]].append(row)
    order = sorted(by_category)
    random.Random("mmlu_pro").shuffle(order)
    for category in order:
        random.Random(f"mmlu_pro: {category}").shuffle(by_category[category])
    turns = chain.from_iterable(zip_longest(*(by_category[category] for category in order)))
    return list(islice((row for row in turns if row is not None), SIZE))


def _item(row: dict[str, Any], seen: Counter[str]) -> Item:
    question = str(row["question_id"])
    seen[question] += 1
    lines = ["Question:", row["question"], "Options:", *option_lines(row["options"]), INSTRUCTION]
    return Item(
        id=question if seen[question] == 1 else f"{question}#{seen[question]}",
        messages=[{"role": "user", "content": "\n".join(lines)}],
        answer={"letter": row["answer"], "options": len(row["options"])},
        group=row["category"],
        cluster=question,
    )


def _score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    """`official` takes the first match anywhere, though it may be a thought that is given up later."""
    if protocol == "official":
        match = _OFFICIAL.search(response.text)
        letter = match[1] or match[2] if match else None
    else:
        letter = final_letter(response, item.answer["options"])
    return Score.of(letter == item.answer["letter"], letter)


def _weights(items: Sequence[Item], protocol: Protocol, metric: str) -> list[float]:
    """Every row counts officially, and under `clean` the first of each question."""
    if protocol == "official":
        return [1.0] * len(items)
    first = {item.cluster: item.id for item in reversed(items)}
    return [float(first[item.cluster] == item.id) for item in items]


BENCHMARK = Benchmark(
    name="mmlu_pro",
    title="MMLU-Pro",
    size=SIZE,
    read=_read,
    upstream=Upstream("TIGER-Lab/MMLU-Pro", ("data/test-*.parquet",)),
    score=_score,
    weights=_weights,
    votes=True,
)
