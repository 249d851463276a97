"""One start of a job: it leaves when it is told to, comes back if that is of use, and how it ended is kept."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from submitit import JobEnvironment

from reprokit.cluster.asking import ask, last_line
from reprokit.cluster.failures import Failure, classify, node_at_fault
from reprokit.cluster.launcher import leave_with_launcher
from reprokit.cluster.snapshot import DIGEST, check_running_code
from reprokit.errors import Interrupted, UserError
from reprokit.leaving import SIGNALS, Leaving
from reprokit.records.run_directory import RunDirectory
from reprokit.records.starts import Start, failed_tasks, start_path, starts_of, write_start

STARTS_WITHOUT_PROGRESS = 3  # after so many of the same job it does not come back by itself
ASKING_SECONDS = 10.0
ASKED_TIMES = 3
REASON_LENGTH = 300
# Failures whose own message says what happened, and not what to do.
_ADVISED = (Failure.memory, Failure.disk, Failure.cluster)


@contextmanager
def attempt(stage: str, run: RunDirectory | None, steps: Sequence[int] = ()) -> Iterator[Leaving]:
    """What a stage does in a job, in every task of it; the stage asks what is yielded whether it is to leave.

    A stage that was told to leave (`Interrupted`) is requeued by the first task of its Slurm job; the others just end.
    Outside a job, nothing is done about signals and nothing written.

    Args:
        run: whose job it is; None: of no run alone.
        steps: of the checkpoints that it evaluates.

    Raises:
        UserError: the code is not what the job was submitted with; memory, disk or cluster failed, and what to do.
        SystemExit: with a code but 0, from the first task of a job that leaves.
    """
    leaving = Leaving()
    if "SUBMITIT_EXECUTOR" not in os.environ:
        yield leaving
        return
    job = _Job.current(stage, run, steps)
    # So they are again afterwards: no signal cuts short what is then written and asked of Slurm, such as that with
    # which srun ends all tasks when one has failed; and submitit would requeue whatever has ended.
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    try:
        with leaving:
            job.begin()
            leave_with_launcher()
            check_running_code()
            yield leaving
    except BaseException as error:
        job.end(error, leaving())
    else:
        job.write(ended=time.time(), outcome="done")


def running_code() -> str:
    """sha256 of the snapshot that this job runs; empty where it runs a checkout."""
    return os.environ.get(DIGEST, "")


def progress_mark(stage: str, run: RunDirectory | None, steps: Sequence[int] = ()) -> int:
    """How much of the work of a stage is on disk, in units of its own; only that it grows has a meaning.

    Training: steps. Others: bytes of samples, scores and judgements, of all checkpoints or of those of `steps`.
    """
    if run is None:
        return 0
    if stage == "train":
        return sys.maxsize if run.training_complete.exists() else run.resume_step()
    folders = [run.evaluated(step) for step in steps] or list((run.root / "evaluation").glob("step_*"))
    return _bytes(run.judgements, "*.jsonl") + sum(map(_of_checkpoint, folders))


def _of_checkpoint(folder: Path) -> int:
    # Gathered samples count twice, and once while the logs from which they are gathered are still there.
    logged, gathered = _bytes(folder / "log", "*.jsonl"), _bytes(folder, "*/samples.jsonl")
    return (logged + gathered if logged else 2 * gathered) + _bytes(folder, "*/scores.jsonl")


def _bytes(folder: Path, pattern: str) -> int:
    size = 0
    for path in folder.glob(pattern):
        with suppress(OSError):
            size += path.stat().st_size
    return size


@dataclass
class _Job:
    """This start of a job, as seen by one of its tasks."""

    stage: str
    run: RunDirectory | None
    rank: int
    on_slurm: bool
    logs: Path
    start: Start

    @staticmethod
    def current(stage: str, run: RunDirectory | None, steps: Sequence[int]) -> _Job:
        environment = JobEnvironment()
        on_slurm = environment.cluster == "slurm"
        start = Start(
            stage=stage,
            job=environment.job_id,
            restart=int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            nodes=list(environment.hostnames) if on_slurm else [],
            code=running_code(),
            steps=list(steps),
            started=time.time(),
        )
        return _Job(stage, run, environment.global_rank, on_slurm, Path(environment.paths.folder), start)

    def begin(self) -> None:
        if self.rank == 0:
            with suppress(OSError):
                self.start.done = progress_mark(self.stage, self.run, self.start.steps)
            self.write()

    def write(self, **changed: object) -> None:
        """Write the record, which is not worth a failure; other tasks than the first write theirs when they fail."""
        for name, value in changed.items():
            setattr(self.start, name, value)
        if self.rank == 0 or self.start.outcome == "failed":
            with suppress(OSError):
                write_start(start_path(self.logs, self.start.job, self.start.restart, self.rank), self.start)

    def end(self, error: BaseException, signal_name: str | None) -> None:
        """Say and keep why the stage ended before its work was done; raises unless this task is just to end."""
        if not self.logs.exists():  # nothing is written that would make a part of the folder again
            raise UserError(f"{self.logs} is gone: the run folder was removed while this job used it") from error
        failure = classify(error)
        # What breaks after the signal, such as connections to tasks that have left, breaks because of it.
        if failure is Failure.left or (signal_name and failure in (Failure.program, Failure.cluster)):
            self._leave(signal_name or str(error) or type(error).__name__, error)
            return
        said = str(error).strip() or type(error).__name__
        self.write(
            ended=time.time(),
            outcome="failed",
            failure=failure.value,
            reason=said.splitlines()[0][:REASON_LENGTH],
            node=node_at_fault(error),
        )
        if failure in _ADVISED and not isinstance(error, UserError):
            raise UserError(f"{type(error).__name__}: {said}\n{failure.advice}") from error
        raise error

    def _leave(self, signal_name: str, error: BaseException) -> None:
        told = f"told to leave by {signal_name}"
        if self.rank:
            print(f"{told}: this task leaves", flush=True)
            return  # an exit code but 0 would end the first task, which may still have to do
        self.write(ended=time.time(), outcome="left", failure=Failure.left.value, reason=signal_name)
        refused = self._come_back() if self.on_slurm else "jobs on this machine are not requeued"
        if refused is None:
            print(f"{told}: what there was is saved, and job {self.start.job} is requeued", flush=True)
        else:
            self.write(reason=f"{signal_name}; {refused}"[:REASON_LENGTH])
            print(f"{told}: what there was is saved; {refused}", flush=True)
        raise SystemExit(1) from (None if isinstance(error, Interrupted) else error)

    def _come_back(self) -> str | None:
        """Let Slurm queue this job again; returns what happens instead, and why, if that is not done."""
        # srun ends the others by the same signal when one of them has failed.
        if failed := failed_tasks(self.logs, self.start.job, self.start.restart):
            return f"not requeued: another task failed: {failed[0].reason}"
        if (fruitless := self._fruitless_starts()) >= STARTS_WITHOUT_PROGRESS:
            return f"not requeued: {fruitless} starts of it in a row made no progress"
        complaint = ""
        for _ in range(ASKED_TIMES):
            shown = ask("scontrol", "--oneliner", "show", "job", self.start.job, seconds=ASKING_SECONDS)
            state = next((word[9:] for word in shown.text.split() if word.startswith("JobState=")), None)
            if shown.well and state != "RUNNING":
                return f"left to Slurm: its state is {state}"  # cancelled, or queued again already
            if shown.well:
                asked = ask("scontrol", "requeue", self.start.job, seconds=ASKING_SECONDS)
                if asked.well:
                    return None
                shown = asked
            complaint = last_line(shown.complaint) or "Slurm does not answer"
            time.sleep(1)
        return f"not requeued: {complaint}"

    def _fruitless_starts(self) -> int:
        """How many starts of this job, this one and those just before it, began with as much as there is now."""
        now = progress_mark(self.stage, self.run, self.start.steps)
        count, starts = 0, starts_of(self.logs, self.start.job)
        if not starts:  # none could be written
            return self.start.restart + 1
        for start in reversed(starts):
            if start.done < now:
                break
            count += 1
        return count
