"""The logs of a run's jobs: which file has what."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reprokit.campaign.status_jobs import launches_of
from reprokit.errors import UserError
from reprokit.records.result import Cell
from reprokit.records.run_directory import RunDirectory
from reprokit.records.starts import FOLDER, Start, read_starts

BLOCK = 1 << 16
LOG = re.compile(r"(.+)_(\d+)_log\.out")  # <job>_<rank>_log.out


@dataclass(frozen=True)
class JobLog:
    """The logs of one job, or element of an array: a file per task. A job that is started again goes on in the same.

    starts: of the first task. failed_rank: the task that failed in the last start, else None.
    """

    launch: str
    stage: str
    job: str
    files: dict[int, Path]
    starts: list[Start]
    failed_rank: int | None

    @property
    def file(self) -> Path:
        """That of the task that failed, else of the first."""
        rank = min(self.files) if self.failed_rank not in self.files else self.failed_rank
        assert rank is not None
        return self.files[rank]

    @property
    def written(self) -> float:
        """When something was last written, in seconds since 1970; 0.0 if it was just removed."""
        try:
            return max(path.stat().st_mtime for path in self.files.values())
        except OSError:
            return 0.0


def find_logs(run: RunDirectory, stage: str | None, cell: Cell | None) -> list[JobLog]:
    """Logs of the newest launch that has any of this stage (None: of any), or of the evaluation of this cell.

    Those of jobs that failed come first, then the newest.

    Raises:
        UserError: there is none; the message says what there is.
    """
    wanted = "evaluate" if cell is not None else stage
    stages: set[str] = set()
    for launch in reversed(launches_of(run)):
        found = [log for log in _logs(run, launch) if wanted in (None, log.stage)]
        stages |= {log.stage for log in _logs(run, launch)}
        if cell is not None:
            found = [log for log in found if any(cell.step in start.steps for start in log.starts)]
        if found:
            return sorted(found, key=lambda log: (log.failed_rank is None, -log.written))
    if cell is not None:
        raise UserError(f"no job of run {run.root.name} has begun with step {cell.step}: there is no log of it")
    what = f"of job {stage}" if stage else "of any job"
    there = f"; there are logs of {', '.join(sorted(stages))}" if stages else ""
    raise UserError(f"run {run.root.name} has no log {what}{there}")


def last_lines(path: Path, count: int) -> list[str]:
    """The last lines of a file, of which only the end is read."""
    with path.open("rb") as stream:
        begin = stream.seek(0, 2)
        end = b""
        while begin > 0 and end.count(b"\n") <= count:
            size = min(BLOCK, begin)
            begin = stream.seek(begin - size)
            end = stream.read(size) + end
    return end.decode(errors="replace").splitlines()[-count:]


def _logs(run: RunDirectory, launch: str) -> Iterator[JobLog]:
    starts = read_starts(run, launch)
    files: dict[tuple[str, str], dict[int, Path]] = {}
    for path in sorted((run.logs / launch).glob("*/*_log.out")):
        if found := LOG.fullmatch(path.name):
            files.setdefault((path.parent.name, found[1]), {})[int(found[2])] = path
    for (stage, job), of_ranks in files.items():
        own = [start for start in starts if (start.stage, start.job) == (stage, job)]
        yield JobLog(launch, stage, job, of_ranks, own, _failed_rank(run.logs / launch / stage, job, own))


def _failed_rank(folder: Path, job: str, starts: list[Start]) -> int | None:
    """The task that failed in the last start of a job: others than the first leave a record of their own."""
    last = max((start.restart for start in starts), default=0)
    if not any(start.outcome == "failed" and start.restart == last for start in starts):
        return None
    ranks = sorted((folder / FOLDER).glob(f"{job}.{last}.rank_*.json"))
    return int(ranks[0].stem.rpartition("_")[2]) if ranks else 0
