"""Live progress of the jobs that run on this machine: bars in a terminal, a line now and then in a log."""

from __future__ import annotations

import time
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from reprokit.records import progress as progress_file
from reprokit.records.files import read_json

SECONDS_BETWEEN_LINES = 15.0


class Monitor:
    """Shows one job at a time; use as a context manager around the job and call `refresh` while it runs."""

    def __init__(self, console: Console, name: str, path: Path) -> None:
        self.console = console
        self.name = name
        self.path = path
        self.started = time.monotonic()
        self.last_line = self.started
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=console,
            transient=True,
        )
        self.bar: TaskID | None = None

    def __enter__(self) -> Monitor:
        self.path.unlink(missing_ok=True)
        if self.console.is_terminal:
            self.bars.start()
            self.bar = self.bars.add_task(f"{self.name}: starting", total=1, detail="")
        else:
            self.console.print(f"{self.name}: started")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar is not None:
            self.bars.stop()
        outcome = "done" if error is None else "failed"
        self.console.print(f"{self.name}: {outcome} after {time.monotonic() - self.started:.0f} s")

    def refresh(self) -> None:
        """Read the progress file and show it."""
        try:
            now = read_json(self.path, progress_file.Progress)
        except (FileNotFoundError, ValueError):
            return
        if self.bar is not None:
            self.bars.update(
                self.bar, description=now.description, completed=now.done, total=now.total, detail=now.detail
            )
        elif time.monotonic() - self.last_line > SECONDS_BETWEEN_LINES:
            self.last_line = time.monotonic()
            self.console.print(f"  {now.description}: {now.done}/{now.total} {now.detail}")
