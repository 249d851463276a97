"""Held-out three-number Countdown: in the domain of the Countdown training rows, with no puzzle of theirs."""

from __future__ import annotations

from reprokit.benchmarks.grading.answers import final_answer
from reprokit.benchmarks.grading.expressions import BadExpression, evaluate
from reprokit.benchmarks.interface import Benchmark, Item, Score
from reprokit.data.countdown import held_out_puzzles, prompt


def _items(count: int, seed: int) -> list[Item]:
    return [
        Item(
            id=puzzle.key,
            messages=[{"role": "user", "content": prompt(puzzle)}],
            answer={"numbers": list(puzzle.numbers), "target": puzzle.target},
        )
        for puzzle in held_out_puzzles(count, seed)
    ]


def _score(item: Item, text: str) -> Score:
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


BENCHMARK = Benchmark(name="countdown", title="Countdown", size=200, make=_items, score=_score)
