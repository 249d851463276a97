"""Generation that goes only as far as a test lets it, however fast the machine is."""

from __future__ import annotations

import glob
import time
from pathlib import Path
from typing import Any

from reprokit import stages


def drawn(root: Path) -> int:
    """Samples of a run in the logs of its workers and in its gathered cells; for a moment some are in both."""
    return sum(_lines(Path(name)) for name in glob.glob(f"{root}/evaluation/step_*/*/*.jsonl"))


def _lines(path: Path) -> int:
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:  # a log, gathered in between
        return 0


def evaluate(limit: int, root: Path, *arguments: Any) -> None:
    """The stage `evaluate` in a job; its engine takes no step while the run has `limit` samples or more."""
    from reprokit.evaluation.engine import Engine

    def step(self: Engine, original: Any = Engine.step) -> Any:
        while drawn(root) >= limit:
            time.sleep(0.02)
        return original(self)

    Engine.step = step  # type: ignore[method-assign]
    stages.evaluate(root, *arguments)
