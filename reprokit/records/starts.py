"""The starts of a job: where and when it ran, how it ended, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal, Optional

import msgspec

from reprokit.records.files import DamagedFileError, read_json, write_json
from reprokit.records.run_directory import RunDirectory

FOLDER = "starts"  # in the folder of a job's logs


class Start(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`<job>.<restart>.json`, written by the first task of a job when it starts and again when it ends.

    A task of another rank that fails writes `<job>.<restart>.rank_003.json` beside it.
    """

    stage: str
    job: str  # "12", or "12_3" for an element of an array; local jobs have an id of their own
    restart: int  # how often Slurm had started the job before
    nodes: list[str]
    code: str = ""  # sha256 of the snapshot that runs; "": it runs the checkout
    steps: list[int] = []  # of the checkpoints that an evaluation is about
    started: float  # seconds since 1970
    ended: Optional[float] = None
    outcome: Optional[Literal["done", "left", "failed"]] = None  # None: it runs, or was killed
    failure: Optional[str] = None  # value of `reprokit.cluster.failures.Failure`
    reason: str = ""  # name of the signal, or first line of the error
    node: Optional[str] = None  # which is at fault
    done: int = 0  # how much was on disk at the start, in units of the stage: larger is more


def start_path(logs: Path, job: str, restart: int, rank: int = 0) -> Path:
    """Where a task writes its record; `logs` is the folder of its job's logs, `logs/<launch>/<stage>/` of the run."""
    of_rank = f".rank_{rank:03d}" if rank else ""
    return logs / FOLDER / f"{job}.{restart}{of_rank}.json"


def write_start(path: Path, start: Start) -> None:
    """Raises OSError when the folder cannot be written."""
    write_json(path, start)


def read_starts(run: RunDirectory, launch: str | None = None) -> list[Start]:
    """All starts of the jobs of one launch (a folder of `logs/`), or of all, oldest first; damaged ones are left out.

    Those of tasks of other ranks are among them.
    """
    return _read(run.logs.glob(f"{launch or '*'}/*/{FOLDER}/*.json"))


def starts_of(logs: Path, job: str) -> list[Start]:
    """Those that the first task of one job wrote, oldest first, be clocks as they may; `logs` as for `start_path`."""
    paths = (path for path in (logs / FOLDER).glob(f"{job}.*.json") if ".rank_" not in path.name)
    return _read(paths, lambda start: start.restart)


def failed_tasks(logs: Path, job: str, restart: int) -> list[Start]:
    """What the tasks of other ranks wrote that failed in one start of a job, the first to fail first."""
    return _read((logs / FOLDER).glob(f"{job}.{restart}.rank_*.json"), lambda start: start.ended or 0.0)


def _read(paths: Iterable[Path], when: Callable[[Start], float] = lambda start: start.started) -> list[Start]:
    found = []
    for path in paths:
        try:
            found.append(read_json(path, Start))
        except (OSError, DamagedFileError):
            continue
    return sorted(found, key=lambda start: (when(start), start.job, start.restart))
