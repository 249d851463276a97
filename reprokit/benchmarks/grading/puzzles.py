"""Items and scores of Countdown puzzles."""

from __future__ import annotations

from collections.abc import Mapping

from reprokit.benchmarks.grading.answers import final_answer
from reprokit.benchmarks.grading.expressions import BadExpression, evaluate
from reprokit.benchmarks.interface import Item, Protocol, Reply, Response, Score
from reprokit.data.countdown import Puzzle, prompt


def item(puzzle: Puzzle) -> Item:
    """The puzzle as a problem, named by its numbers and target."""
    return Item(
        id=puzzle.key,
        messages=[{"role": "user", "content": prompt(puzzle)}],
        answer={"numbers": list(puzzle.numbers), "target": puzzle.target},
    )


def answer_of(response: Response, protocol: Protocol) -> str | None:
    """The last box after thinking; in the clean protocol a response that was cut off has none."""
    return final_answer(response.text) if response.finished or protocol == "official" else None


def score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
    """1 if the boxed expression uses each given number exactly once and has the target as its exact value."""
    answer = answer_of(response, protocol)
    if answer is None:
        return Score.of(False, None)
    try:
        value, numbers = evaluate(answer)
    except BadExpression:
        return Score.of(False, answer)
    right = value == item.answer["target"] and sorted(numbers) == sorted(item.answer["numbers"])
    return Score.of(right, answer)
