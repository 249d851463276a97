"""Held-out three-number Countdown: in the domain of the Countdown training rows, with no puzzle of theirs."""

from reprokit.benchmarks.grading.puzzles import item, score
from reprokit.benchmarks.interface import Benchmark, Item
from reprokit.data.countdown import held_out_puzzles


def _items(count: int, seed: int) -> list[Item]:
    return [item(puzzle) for puzzle in held_out_puzzles(count, seed)]


BENCHMARK = Benchmark(name="countdown", title="Countdown", size=200, make=_items, score=score)
