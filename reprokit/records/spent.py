"""What a training took, told from the lines of its metrics."""

from __future__ import annotations

import msgspec

from reprokit.records.run_directory import RunDirectory


class Spent(msgspec.Struct, kw_only=True):
    """Optimiser steps, their seconds and their tokens; without the time of starting up and of saving checkpoints."""

    steps: int = 0
    seconds: float = 0.0
    tokens: int = 0


class _Line(msgspec.Struct):
    """The fields of a line of metrics that are looked at here."""

    seconds: float
    tokens: int


def spent_on_training(run: RunDirectory) -> Spent:
    """All that a run has cost: steps that were taken again after an interruption count as often as they were taken.

    Damaged lines, as a kill leaves them, are passed over.
    """
    spent = Spent()
    for path in sorted([*run.root.glob("train/metrics*.jsonl"), *run.root.glob("interrupted_*/train/metrics*.jsonl")]):
        for text in path.read_bytes().splitlines():
            try:
                line = msgspec.json.decode(text, type=_Line)
            except (msgspec.DecodeError, UnicodeDecodeError):
                continue
            spent.steps += 1
            spent.seconds += line.seconds
            spent.tokens += line.tokens
    return spent
