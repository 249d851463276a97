"""Countdown with a number given twice or three times: just outside the training rows, whose numbers all differ."""

from reprokit.benchmarks.grading.puzzles import item, score
from reprokit.benchmarks.interface import Benchmark, Item
from reprokit.data.countdown import held_out_puzzles


def _items(count: int, seed: int) -> list[Item]:
    return [item(puzzle) for puzzle in held_out_puzzles(count, seed, repeats=True)]


BENCHMARK = Benchmark(name="countdown_repeats", title="Countdown, repeats", size=200, make=_items, score=score)
