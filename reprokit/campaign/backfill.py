"""The last job of every submission of a run: it looks at what is missing on disk, and submits that.

It needs nothing but the run folder: recipe, cluster profile, and what the jobs of its round wrote about their starts.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from reprokit.campaign.graph import BACKFILL, Workspace, backfill_job, plan, with_backfill
from reprokit.campaign.rounds import Next, Round, decide, outcomes
from reprokit.campaign.submission import active_jobs, locked, new_logs, read_jobs, submit
from reprokit.cluster import slurm
from reprokit.cluster.attempt import progress_mark
from reprokit.cluster.job import Job, stage_in
from reprokit.cluster.profile import ClusterProfile
from reprokit.cluster.profiles import load_profile
from reprokit.cluster.queue import QueuedJob, ended, node_names, queued
from reprokit.cluster.snapshot import take
from reprokit.errors import UserError
from reprokit.recipe import load_resolved
from reprokit.recipe.schema import Recipe
from reprokit.records import interrupted
from reprokit.records.files import write_json
from reprokit.records.run_directory import LeftOut, RunDirectory, Stopped, SubmittedJobs
from reprokit.records.starts import read_starts
from reprokit.words import interpreter

PATIENCE_SECONDS = 600.0  # with another launch, and with a Slurm that does not answer
POLL_SECONDS = 10.0
_SILENT = re.compile(
    r"Unable to contact|[Tt]imed out|Connection refused|Zero Bytes|temporar|no answer within|Slurm does not say"
)
UNFIT = "node configuration is not available"  # sbatch of a job for which no nodes are there
_STEPS_WEIGH = 10**12  # bytes of samples that a step of the training counts for
Answer = TypeVar("Answer")


class CancelledError(UserError):
    """The back-fill itself is cancelled."""


def backfill(
    run: RunDirectory,
    workspace: Workspace,
    functions: Mapping[str, Callable[..., None]],
    figures_current: Callable[[Path, Path], bool],
) -> None:
    """Submit what is missing of a run, when the jobs of its last submission have ended.

    What keeps it from that is printed and written to `stopped.json`.

    Raises:
        UserError, OSError: the run folder cannot be read or written, or Slurm did not take the jobs.
    """
    try:
        with locked(run, PATIENCE_SECONDS):
            submitted = read_jobs(run)
            if submitted is not None and own_job() in submitted.ids.values():
                _Backfill(run, workspace, functions, figures_current, submitted).go()
                return
            if submitted is not None and not submitted.released:  # this job was killed before it let them go
                _patiently(lambda: active_jobs(run, load_profile(str(run.cluster))))
            print("a later submission of this run has taken over")
    except (UserError, OSError) as error:
        if (submitted := read_jobs(run)) is not None:
            _stop(run, submitted, f"the back-fill could not go on: {error}", "")
        raise


def own_job() -> str:
    """Slurm's id of this job, without elements."""
    return os.environ.get("SLURM_JOB_ID", "")


def campaign_mark(run: RunDirectory) -> int:
    """How much of a run is on disk; only that it grows has a meaning."""
    made = sum(1 for name in ("generation", "result") for _ in run.root.glob(f"evaluation/step_*/*/{name}.json"))
    steps = min(progress_mark("train", run), 10**6)
    return steps * _STEPS_WEIGH + progress_mark("evaluate", run) + made


class _Backfill:
    """One back-fill, of the round that `submitted` tells of."""

    def __init__(
        self,
        run: RunDirectory,
        workspace: Workspace,
        functions: Mapping[str, Callable[..., None]],
        figures_current: Callable[[Path, Path], bool],
        submitted: SubmittedJobs,
    ) -> None:
        self.run, self.workspace, self.functions, self.submitted = run, workspace, functions, submitted
        self.figures_current = figures_current
        self.recipe: Recipe = load_resolved(run.recipe)
        self.profile: ClusterProfile = load_profile(str(run.cluster))

    def go(self) -> None:
        others = [job for job in _patiently(self._active) if job.job_id != own_job() and job.state != "COMPLETING"]
        if others:
            self._come_again(others)
            return
        coming = decide(self._round(), self._plan, self._usable)
        if coming.stopped is not None:
            _stop(self.run, self.submitted, coming.stopped, coming.advice)
        elif not coming.jobs:
            print(f"run {self.recipe.name} is complete")
        else:
            self._submit(coming)

    def _active(self) -> list[QueuedJob]:
        return active_jobs(self.run, self.profile)

    def _round(self) -> Round:
        last = self.submitted
        jobs = {job_id: stage_in(name) for name, job_id in last.ids.items() if name != BACKFILL}
        starts = read_starts(self.run, last.launch)
        states = ended(jobs, last.slurm_conf)
        return Round(
            number=last.round,
            fruitless=last.fruitless,
            progressed=campaign_mark(self.run) > last.done,
            outcomes=outcomes(starts, states, jobs),
            left_out=last.left_out,
            excluded=last.excluded,
        )

    def _plan(self, left_out: Sequence[LeftOut]) -> list[Job]:
        """What is missing; nothing is prepared here, where there may be no network."""
        stages = [stage for stage in self.submitted.stages if stage != "prepare"]
        without = {each.stage for each in left_out if not each.steps}
        steps = frozenset(step for each in left_out for step in each.steps)
        workspace, recipe = self.workspace, self.recipe
        current = self.figures_current(workspace.results / f"{recipe.name}.json", workspace.figures)
        stages = [stage for stage in stages if stage not in without]
        return plan(workspace, recipe, self.profile, stages, self.functions, current, without=steps)

    def _usable(self, job: Job) -> set[str]:
        excluded = set(node_names(self.profile.exclude or ""))
        return slurm.usable_nodes(job.resources.partition or self.profile.partition) - excluded

    def _submit(self, coming: Next) -> None:
        if any(job.name == "train" for job in coming.jobs):
            interrupted.set_aside_after(self.run, self.run.resume_step())
        about = msgspec.structs.replace(
            self.submitted,
            ids={},
            launch="",
            round=self.submitted.round + 1,
            fruitless=coming.fruitless,
            done=campaign_mark(self.run),
            excluded=list(coming.excluded),
            left_out=list(coming.left_out),
        )
        jobs = with_backfill(coming.jobs, self.workspace, self.recipe, self.profile, self.functions)
        submitted = self._give(jobs, about)
        names = ", ".join(f"{name} {job_id}" for name, job_id in submitted.ids.items())
        print(f"round {about.round}: submitted {names}")
        if about.excluded:
            print(f"without nodes {', '.join(about.excluded)}")
        if about.left_out:
            print(f"without what failed: {', '.join(f'{each.stage} {each.steps}' for each in about.left_out)}")

    def _come_again(self, others: Sequence[QueuedJob]) -> None:
        """Jobs of this round are back in the queue: let a successor of this job wait for them."""
        names = {job_id: name for name, job_id in self.submitted.ids.items()}
        waited = {names.get(job.job_id, f"{stage_in(job.name)}.{job.id}"): job.job_id for job in others}
        stages = tuple(dict.fromkeys(map(stage_in, waited)))
        job = backfill_job(stages, self.workspace, self.recipe, self.profile, self.functions)
        self._give([job], self.submitted, waited)
        print(f"jobs are back in the queue: {', '.join(job.id for job in others)}; the back-fill waits for them")

    def _give(
        self, jobs: Sequence[Job], about: SubmittedJobs, earlier: Mapping[str, str] = slurm.NOTHING
    ) -> SubmittedJobs:
        """Submit jobs, those of a new launch in a new folder; this cluster may not let jobs do that."""
        environment = take(self.run).environment

        def give() -> SubmittedJobs:
            self._active()  # cancels what an attempt whose answer did not come has left
            launch = about.launch or new_logs(self.run).name
            named = msgspec.structs.replace(about, launch=launch)
            return submit(jobs, self.run, named, self.profile, environment, earlier, self._check_not_cancelled)

        try:
            return _patiently(give)
        except CancelledError:
            raise
        except UserError as error:
            if about.excluded and UNFIT in str(error):  # the other nodes lack what a job asks for
                return self._give(jobs, msgspec.structs.replace(about, excluded=[]), earlier)
            raise UserError(
                f"{error}\nIf this cluster does not let jobs submit jobs, type this where you launched:\n"
                f"  {_command(self.submitted)}"
            ) from error

    def _check_not_cancelled(self) -> None:
        """A job that is cancelled has half a minute to end: what it submits in that time must not begin.

        Raises:
            CancelledError: this job is being ended, by a person or at its time limit.
        """
        if any(job.job_id == own_job() and job.state != "RUNNING" for job in queued(self.submitted.slurm_conf)):
            raise CancelledError("it was told to end while it submitted; nothing is left submitted")


def _patiently(action: Callable[[], Answer]) -> Answer:
    """Do it, again and again for some minutes as long as Slurm does not answer: its controller may be restarting.

    Raises:
        UserError: of the action.
    """
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return action()
        except UserError as error:
            if not _SILENT.search(str(error)) or time.monotonic() > deadline:
                raise
            print(f"Slurm does not answer; trying again: {error}", flush=True)
        time.sleep(POLL_SECONDS)


def _stop(run: RunDirectory, submitted: SubmittedJobs, reason: str, advice: str) -> None:
    """Say, here and in the run folder, why nothing more is submitted."""
    advice = "\n".join(filter(None, (advice, f"To go on: {_command(submitted)}")))
    print(f"the back-fill stops after round {submitted.round}: {reason}\n{advice}")
    write_json(run.stopped, Stopped(reason=reason, advice=advice, round=submitted.round, when=time.time()))


def _command(submitted: SubmittedJobs) -> str:
    return f"{interpreter()} -m reprokit.launch {submitted.command} cluster={submitted.cluster}"
