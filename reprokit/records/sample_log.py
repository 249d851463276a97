"""Logs of samples: appended as they finish, readable whatever was killed while writing."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from reprokit.errors import NodeError, UserError
from reprokit.records.files import DamagedFileError, cut_off_half_a_line, read_json, read_json_lines, sha256_of_file
from reprokit.records.result import Cell, Sample, read_generation
from reprokit.records.run_directory import RunDirectory, step_of

logger = logging.getLogger(__name__)
SYNC_SECONDS = 1.0


class Drawn(msgspec.Struct):
    """Those fields of a sample that tell what was drawn; the text is passed over."""

    benchmark: str
    item: str
    sample: int
    request: str
    response_tokens: int


Row = TypeVar("Row", Sample, Drawn)
T = TypeVar("T")


class SampleLog:
    """Appends samples to the log of one worker.

    A process that is killed loses nothing that `append` has returned from; a machine that fails loses about a second.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.stream = path.open("ab")
        self.synced = time.monotonic()
        cut_off_half_a_line(path)

    def append(self, sample: Sample) -> None:
        """Raises OSError when the disk is full; what was logged before is unharmed."""
        self.stream.write(msgspec.json.encode(sample) + b"\n")
        self.stream.flush()
        if time.monotonic() - self.synced > SYNC_SECONDS:
            self._sync()

    def close(self) -> None:
        self._sync()
        self.stream.close()

    def _sync(self) -> None:
        os.fsync(self.stream.fileno())
        self.synced = time.monotonic()


def read_log(path: Path, shape: type[Row]) -> Iterator[Row]:
    """Samples of a log or of a `samples.jsonl`; nothing where there is no such file.

    A line that is damaged counts as not written: its sample is drawn again. A last line without its end is what a
    kill leaves; any other is warned of.
    """
    decoder = msgspec.json.Decoder(shape)
    try:
        stream = path.open("rb")
    except FileNotFoundError:
        return
    with stream:
        for number, line in enumerate(stream, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                logger.warning("%s, line %d is damaged and passed over: %s", path, number, error)


def read_logs(run: RunDirectory, step: int, shape: type[Row]) -> Iterator[Row]:
    """What all workers of all starts have logged for a checkpoint; nothing once another job has gathered it."""
    try:
        paths = sorted(run.sample_logs(step).glob("*.jsonl"))
    except FileNotFoundError:  # the folder was removed between a look whether it is there and one into it
        return
    for path in paths:
        yield from read_log(path, shape)


def sampled_steps(run: RunDirectory) -> list[int]:
    """Steps that something was ever drawn for."""
    return sorted(step for path in (run.root / "evaluation").glob("step_*") if (step := step_of(path)) >= 0)


def read_items(run: RunDirectory, benchmark: str, shape: type[T]) -> list[T]:
    """The problems of a benchmark, as they were prepared.

    Raises:
        UserError: they are damaged or gone; then they no more count as prepared, and the next launch makes them anew.
    """
    path, source = run.items(benchmark), run.items_source(benchmark)
    try:
        if sha256_of_file(path) != items_digest(run, benchmark):
            raise DamagedFileError(f"{path} is not what was prepared (its sha256 differs from {source.name})")
        return list(read_json_lines(path, shape))
    except (FileNotFoundError, DamagedFileError) as error:
        source.unlink(missing_ok=True)
        raise UserError(f"{error}. Launch again: the problems of {benchmark} are prepared anew.") from error


def read_samples(run: RunDirectory, step: int, benchmark: str, items: int) -> list[Sample]:
    """The samples of a cell that is generated, for `items` problems.

    Raises:
        NodeError: they are damaged; then they no more count as complete, and another start draws what is lost.
    """
    path, made = run.samples(step, benchmark), read_generation(run.generation(step, benchmark))
    try:
        samples = list(read_json_lines(path, Sample))
        if made is None or len(samples) != items * made.settings["samples"]:
            raise DamagedFileError(
                f"{path} is damaged: it has {len(samples):,} samples, and not those of {items:,} items"
            )
        return samples
    except DamagedFileError as error:
        run.generation(step, benchmark).unlink(missing_ok=True)
        raise NodeError(f"{error}. Launch again: what cannot be read is drawn again.") from error


def items_digest(run: RunDirectory, benchmark: str) -> str | None:
    """The sha256 of the problems that are put to the checkpoints; None before they are prepared."""
    try:
        return read_json(run.items_source(benchmark), dict[str, Any]).get("items")
    except (FileNotFoundError, DamagedFileError):
        return None


def is_generated(run: RunDirectory, cell: Cell, settings: dict[str, Any]) -> bool:
    """Whether all samples of a cell are there that were drawn with these sampling settings for the present problems."""
    made = read_generation(run.generation(cell.step, cell.benchmark))
    if made is None or not run.samples(cell.step, cell.benchmark).exists():
        return False
    return (made.cell, made.settings, made.items) == (cell, settings, items_digest(run, cell.benchmark))
