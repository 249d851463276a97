"""Benchmarks from reasoning-gym: its generators make the items, its scorers judge the answers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from reprokit.benchmarks.grading.puzzles import answer_of
from reprokit.benchmarks.interface import Benchmark, Item, Protocol, Reply, Response, Score
from reprokit.data.prompts import BOX_INSTRUCTION
from reprokit.errors import UserError

if TYPE_CHECKING:
    from reasoning_gym.dataset import ProceduralDataset

MOST_ITEMS = 100_000


def benchmark(name: str, title: str, size: int, **settings: Any) -> Benchmark:
    """A benchmark of reasoning-gym's task `name`, with the task's `settings`."""

    @cache
    def scorer() -> ProceduralDataset:
        return _dataset(name, 1, 0, settings)

    def items(count: int, seed: int) -> list[Item]:
        if not 0 < count <= MOST_ITEMS:
            raise UserError(f"{name}: {count} items asked for; give a number from 1 to {MOST_ITEMS}")
        dataset = _dataset(name, count, seed, settings)
        return [_item(number, dataset[number]) for number in range(count)]

    def score(item: Item, response: Response, protocol: Protocol, replies: Mapping[str, Reply]) -> Score:
        """1 if the task's own scorer gives full marks; its partial marks for a mention of the answer count as 0."""
        answer = answer_of(response, protocol)
        return Score.of(answer is not None and scorer().score_answer(answer, item.answer) == 1.0, answer)

    return Benchmark(name=name, title=title, size=size, make=items, score=score, votes=True)


def _dataset(name: str, count: int, seed: int, settings: dict[str, Any]) -> ProceduralDataset:
    import reasoning_gym  # two seconds, which commands that only look for results need not wait

    return reasoning_gym.create_dataset(name, size=count, seed=seed, **settings)


def _item(number: int, entry: dict[str, Any]) -> Item:
    return Item(
        id=f"{number:06d}",
        messages=[{"role": "user", "content": entry["question"] + BOX_INSTRUCTION}],
        answer={"answer": entry["answer"]},
    )
