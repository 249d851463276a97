"""Commands of Slurm that say what a test wants them to."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

from reprokit.cluster.queue import SEPARATOR


def put_command(folder: Path, name: str, script: str) -> None:
    """Make a command of a shell script."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def put_queue(folder: Path, now: Sequence[str], remembered: Sequence[str] = ()) -> None:
    """A squeue that shows lines of `queue_line`; with --states=all those of jobs that have ended, too."""
    (folder / "now").write_text("".join(f"{line}\n" for line in now))
    (folder / "all").write_text("".join(f"{line}\n" for line in [*now, *remembered]))
    there = shlex.quote(str(folder))
    put_command(folder, "squeue", f'case "$*" in *--states=all*) cat {there}/all;; *) cat {there}/now;; esac')


def queue_line(
    job: str,
    state: str,
    name: str = "evaluate.mini",
    *,
    reason: str = "None",
    nodes: str = "",
    elapsed: str = "0:00",
    limit: str = "8:00:00",
    script: str = "",
    comment: str = "(null)",
) -> str:
    """A line as squeue writes it when `reprokit.cluster.queue` asks."""
    return SEPARATOR.join([job, state, reason, nodes, elapsed, limit, name, script, comment])


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for such commands, in which they are found first; without any, there is no accounting."""
    folder = tmp_path / "commands"
    put_command(folder, "sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.delenv("SLURM_CONF", raising=False)
    return folder
