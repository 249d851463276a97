"""AlpacaEval 2.0, judged by reward models: the mean reward of the answers, as in the official code.

No reference model, no win rate, no length control. The scale is the judge's own: only numbers of one judge can be
compared. Higher is better.

official: the reward of what follows the last `</think>`, or of the whole response without one, unfinished thoughts
included.
clean: a response without a whole answer (cut off, or nothing after its thinking) gets the reward of an empty answer to
its instruction: the scale has no zero that would stand for "wrong", and leaving such responses out would reward them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from reprokit.benchmarks.grading.files import read_rows
from reprokit.benchmarks.grading.thinking import clean_answer, excerpt
from reprokit.benchmarks.interface import Benchmark, Item, Metric, Protocol, Question, Reply, Response, Score, Upstream

JUDGES = ("RB2", "Sky", "Mis")  # the paper's main tables use the first


def _read(paths: Sequence[Path]) -> list[Item]:
    rows = [row for path in paths for row in read_rows(path, {"instruction": str, "dataset": str})]
    return [
        Item(
            id=f"{number:04d}",
            messages=[{"role": "user", "content": row["instruction"]}],
            answer={},
            group=row["dataset"],
        )
        for number, row in enumerate(rows)
    ]


def _answer(response: Response, protocol: Protocol) -> str:
    if protocol == "official":
        return response.text.rpartition("</think>")[2].strip()
    return clean_answer(response) or ""


def _questions(item: Item, response: Response, judges: Mapping[str, str]) -> dict[str, Question]:
    instruction = item.messages[0]["content"]
    protocols: tuple[Protocol, ...] = ("official", "clean")
    return {
        f"{protocol}/{judge}": Question(judge, instruction, _answer(response, protocol))
        for protocol in protocols
        for judge in judges
    }


def _score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    rewards = {judge: replies.get(f"{protocol}/{judge}") for judge in JUDGES}
    values = {f"reward_{judge}": reward for judge, reward in rewards.items() if isinstance(reward, (int, float))}
    usable = {metric: reward for metric, reward in values.items() if math.isfinite(reward)}
    return Score(usable, excerpt(_answer(response, protocol)))


BENCHMARK = Benchmark(
    name="alpaca_eval",
    title="AlpacaEval 2.0",
    size=805,
    read=_read,
    upstream=Upstream("tatsu-lab/alpaca_eval", ("alpaca_eval.json",)),
    metrics=tuple(
        Metric(f"reward_{judge}", title=f"mean reward {judge}", unit="reward", judge=judge) for judge in JUDGES
    ),
    questions=_questions,
    score=_score,
)
