"""What a training that was interrupted left in its run folder, and how the folder is made ready for it to go on."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from reprokit.records import manifest
from reprokit.records.files import write_bytes
from reprokit.records.run_directory import RunDirectory


class _Line(msgspec.Struct):
    """The one field of a line of metrics that is looked at here."""

    step: int


def set_aside_after(run: RunDirectory, step: int) -> Path | None:
    """Move results, checkpoints and states of later steps than `step` to `interrupted_NN/`; the base always stays.

    With step 0, where the training begins anew, its metrics go too. Returns the folder, None if there was nothing.
    """
    # Results go first: cut off half-way, none is left that a new training's checkpoints would be credited with.
    left = list(run.made_after(step))
    if step == 0 and run.metrics.parent.exists():
        left.append(run.metrics.parent)
    if not left:
        return None
    aside = run.root / f"interrupted_{_next_number(run.root, 'interrupted_*'):02d}"
    for path in left:
        target = aside / path.relative_to(run.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, target)
    return aside


def trim_metrics(run: RunDirectory, step: int) -> None:
    """Cut the lines after `step`, and a damaged end, off the metrics; they are kept in `metrics.attempt_NN.jsonl`."""
    if not run.metrics.exists():
        return
    lines = run.metrics.read_bytes().splitlines(keepends=True)
    kept = next((number for number, line in enumerate(lines) if not _is_up_to(step, line)), len(lines))
    if kept == len(lines):
        return
    folder = run.metrics.parent
    attempt = folder / f"metrics.attempt_{_next_number(folder, 'metrics.attempt_*'):02d}.jsonl"
    write_bytes(attempt, b"".join(lines[kept:]))
    write_bytes(run.metrics, b"".join(lines[:kept]))


def remove_needless(run: RunDirectory) -> None:
    """Remove what a complete training needs no more: its states, which it may not have had the time to remove."""
    for step in run.states():
        manifest.remove(run.state(step))
    remove_leftovers(run)


def remove_leftovers(run: RunDirectory) -> None:
    """Remove half-written checkpoints and states."""
    for kind in ("checkpoints", "state"):
        manifest.remove_leftovers(run.root / kind)


def _is_up_to(step: int, line: bytes) -> bool:
    try:
        return line.endswith(b"\n") and msgspec.json.decode(line, type=_Line).step <= step
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _next_number(folder: Path, pattern: str) -> int:
    """One more than the largest NN of the names `..._NN...` in `folder`."""
    numbers = (path.stem.rpartition("_")[2] for path in folder.glob(pattern))
    return 1 + max((int(number) for number in numbers if number.isdigit()), default=0)
