"""A progress bar that is also a file, so that another process can show how far a job is."""

from __future__ import annotations

import os
import platform
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from tqdm import tqdm


class Progress(msgspec.Struct, kw_only=True):
    """Content of a progress file."""

    description: str
    done: int
    total: int
    detail: str = ""


class ProgressBar(tqdm):  # type: ignore[type-arg]
    """tqdm on stderr (a line every ten seconds where that is a log file) that mirrors itself into `path`."""

    def __init__(self, *arguments: Any, path: Path | None = None, **options: Any) -> None:
        self.path = path
        self.written = 0.0
        interval = 0.5 if sys.stderr.isatty() else 10.0
        super().__init__(*arguments, **{"mininterval": interval, "dynamic_ncols": True, **options})

    def update(self, n: float | None = 1) -> bool | None:
        shown = super().update(n)
        if self.path is not None and (time.monotonic() - self.written > 0.5 or self.n == self.total):
            self.written = time.monotonic()
            self._write(self.path)
        return shown

    def _write(self, path: Path) -> None:
        """Replaced in one step but not synced: a progress file that is lost or cannot be written harms nobody."""
        progress = Progress(
            description=self.desc.strip(": ") if self.desc else "",
            done=int(self.n),
            total=int(self.total or 0),
            detail=str(self.postfix or ""),
        )
        aside = path.with_suffix(f".{platform.node()}.{os.getpid()}")
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            aside.write_bytes(msgspec.json.encode(progress))
            os.replace(aside, path)
