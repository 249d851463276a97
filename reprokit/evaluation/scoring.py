"""Samples -> scores of every sample, in a pool of processes with time limits. Needs no GPU and no engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import TimeoutError as Expired
from pathlib import Path

import msgspec
from pebble import ProcessExpired, ProcessPool

from reprokit import benchmarks
from reprokit.benchmarks.interface import PROTOCOLS, Benchmark, Item, Reply, Response
from reprokit.errors import UserError
from reprokit.records.files import read_json_lines
from reprokit.records.result import SampleScore


class Task(msgspec.Struct, frozen=True):
    """One response to score, with the replies of the judges by the names of the questions."""

    item: str
    sample: int
    text: str
    finished: bool
    replies: dict[str, Reply]


class Pool:
    """Processes that score responses to the problems of one benchmark.

    Every process reads the problems once: those of LiveCodeBench are large.
    """

    def __init__(self, benchmark: str, items: Path, processes: int | None = None) -> None:
        self.seconds = benchmarks.get(benchmark).score_seconds
        benchmarks.get(benchmark).facts()  # found out once, not in every process
        self.processes = processes or len(os.sched_getaffinity(0))
        self.failures: list[str] = []
        _load(benchmark, items)  # what is imported here, the processes inherit
        self.pool = ProcessPool(self.processes, initializer=_load, initargs=(benchmark, items))

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.pool.stop()
        self.pool.join()

    def score(self, tasks: Sequence[Task], scored: Callable[[], object] = lambda: None) -> list[SampleScore]:
        """Scores in the order of the tasks; `scored` is called after each.

        A response whose scoring takes too long, fails or kills its process is scored as an empty, unfinished one, and
        named in `failures`.

        Raises:
            UserError: nothing can be scored on this machine.
        """
        # Results are awaited in order: a slow one holds up the count, not the pool.
        futures = [self.pool.schedule(_score, args=[task], timeout=self.seconds) for task in tasks]
        scores = []
        for task, future in zip(tasks, futures, strict=True):
            try:
                scores.append(future.result())
            except UserError:
                raise  # nothing can be scored here
            except Exception as error:  # whatever a text brings about, it is not to keep the others from their scores
                self.failures.append(f"{task.item}, sample {task.sample}: {_reason(error)}")
                scores.append(_score(msgspec.structs.replace(task, text="", finished=False)))
            scored()
        return scores


_loaded: tuple[tuple[str, Path], Benchmark, dict[str, Item]] | None = None


def _reason(error: Exception) -> str:
    if isinstance(error, Expired):
        return "its time was up"
    return "its process died" if isinstance(error, ProcessExpired) else f"{type(error).__name__}: {error}"


def _load(benchmark: str, items: Path) -> None:
    """Read the problems, unless the process that this one was made from has."""
    global _loaded
    if _loaded is None or _loaded[0] != (benchmark, items):
        by_id = {item.id: item for item in read_json_lines(items, Item)}
        _loaded = (benchmark, items), benchmarks.get(benchmark), by_id


def _score(task: Task) -> SampleScore:
    assert _loaded is not None
    _, benchmark, items = _loaded
    response = Response(task.text, task.finished)
    scores = {protocol: benchmark.score(items[task.item], response, protocol, task.replies) for protocol in PROTOCOLS}
    return SampleScore(
        item=task.item,
        sample=task.sample,
        values={protocol: score.values for protocol, score in scores.items()},
        answers={protocol: score.answer for protocol, score in scores.items()},
    )
