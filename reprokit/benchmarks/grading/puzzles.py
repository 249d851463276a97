"""Items and scores of Countdown puzzles."""

from __future__ import annotations

from reprokit.benchmarks.grading.answers import final_answer
from reprokit.benchmarks.grading.expressions import BadExpression, evaluate
from reprokit.benchmarks.interface import Item, Score
from reprokit.data.countdown import Puzzle, prompt


def item(puzzle: Puzzle) -> Item:
    """The puzzle as a problem, named by its numbers and target."""
    return Item(
        id=puzzle.key,
        messages=[{"role": "user", "content": prompt(puzzle)}],
        answer={"numbers": list(puzzle.numbers), "target": puzzle.target},
    )


def score(item: Item, text: str) -> Score:
    """1 if the boxed expression uses each given number exactly once and has the target as its exact value."""
    answer = final_answer(text)
    if answer is None:
        return Score(0.0, None)
    try:
        value, numbers = evaluate(answer)
    except BadExpression:
        return Score(0.0, answer)
    right = value == item.answer["target"] and sorted(numbers) == sorted(item.answer["numbers"])
    return Score(float(right), answer)
