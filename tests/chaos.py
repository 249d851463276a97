"""Random misfortune for a campaign on a real Slurm, from a seed, and an account of what it did."""

from __future__ import annotations

import json
import random
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from reprokit.campaign.backfill import campaign_mark
from reprokit.cluster.queue import QueuedJob
from reprokit.records.starts import read_starts
from tests.survival import PATIENCE_SECONDS, STAGES, Campaign, signal_all, stage_of

LATE = ("score", "collect", "backfill")  # short, and without a mark of progress that grows
AT_ONCE = 0.25  # share of the blows that do not wait for progress: they hit jobs that wait or start
MOST_AT_A_TIME = 4


@dataclass(frozen=True)
class Event:
    """One blow: what was done to which job, and the seconds since a sample was logged if it was an evaluation."""

    at: float
    kind: str
    job: str
    unsaved: float | None = None


@dataclass
class Chaos:
    """Strikes a campaign until it is through, at most `most` times."""

    campaign: Campaign
    seed: int
    most: int
    say: Callable[[str], None] = print
    events: list[Event] = field(default_factory=list)
    launches_by_hand: int = 0

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.slurm, self.down = self.campaign.slurm, set[str]()
        self.began = time.monotonic()
        self.backfill_is_to_die, self.seen = False, set[str]()
        self.kinds: dict[str, Callable[[QueuedJob], bool]] = {
            "SIGKILL of a task": self._kill,
            "SIGTERM to a step": self._terminate,
            "preemption": self._preempt,
            "node down": self._take_down,
            "scontrol requeue": self._requeue,
            "scancel of an element": self._cancel,
            "SIGKILL of the back-fill": self._doom_backfill,
            "SIGKILL of a launch": self._kill_launch,
        }

    def run(self) -> None:
        """Launch, strike, and launch again where nothing goes on by itself, until everything is there."""
        self._kill_launch(None)
        self.campaign.launch()
        try:
            while self._goes_on():
                self._bring_back()
                for _ in range(self.random.randint(1, MOST_AT_A_TIME)):
                    if len(self.events) < self.most:
                        self._strike()
        finally:
            self._bring_back()

    def _goes_on(self) -> bool:
        """Wait for the next moment to strike; whether there will be one. Nothing depends on how fast the machine is."""
        mark, at_once = campaign_mark(self.campaign.run), self.random.random() < AT_ONCE
        until = time.monotonic() + (self.random.random() if at_once else PATIENCE_SECONDS)
        steps = self.random.randint(1, 2)  # how often progress is to be seen
        while time.monotonic() < until:
            jobs = self.campaign.jobs()
            self._kill_doomed(jobs)
            if not jobs:
                return self._launch_again()
            if len(self.events) >= self.most:
                self._bring_back()
                until = time.monotonic() + PATIENCE_SECONDS
            elif late := {job.id for job in jobs if job.state == "RUNNING" and stage_of(job) in LATE} - self.seen:
                self.seen |= late
                return True
            elif (now := campaign_mark(self.campaign.run)) > mark:
                mark, steps = now, steps - 1
                if steps == 0:
                    return True
            time.sleep(0.1)
        assert at_once, f"no progress in {PATIENCE_SECONDS} s: {self.campaign.jobs()}"
        return True

    def _launch_again(self) -> bool:
        """Nothing waits or runs: the end, or somebody has to launch."""
        if self.campaign.is_complete():
            return False
        self.launches_by_hand += 1
        stopped = self.campaign.run.stopped
        self._tell(f"launch by hand: {stopped.read_text() if stopped.exists() else 'the back-fill was shot'}")
        self.campaign.launch()
        return True

    def _strike(self) -> None:
        """One blow of a random kind to a random job that runs; those that cannot be dealt now are drawn again."""
        jobs = [job for job in self.campaign.jobs() if job.state == "RUNNING"]
        if not jobs:
            return
        kinds = list(self.kinds)
        self.random.shuffle(kinds)
        job = self.random.choice(sorted(jobs, key=lambda job: job.id))
        for kind in kinds:
            unsaved = self._seconds_since_sample(job) if stage_of(job) == "evaluate" else None
            if self.kinds[kind](job):
                if kind not in ("SIGKILL of the back-fill", "SIGKILL of a launch"):  # which count when they come true
                    self._happened(kind, job, unsaved)
                return

    def _happened(self, kind: str, job: QueuedJob | None, unsaved: float | None = None) -> None:
        name = f"{stage_of(job)} {job.id}" if job else "launch"
        self.events.append(Event(time.monotonic() - self.began, kind, name, unsaved))
        self._tell(f"{len(self.events)}: {kind}, {name}")

    def _tell(self, text: str) -> None:
        self.say(f"{time.monotonic() - self.began:7.1f} s  {text}")

    def _kill(self, job: QueuedJob) -> bool:
        """Kill one process of a job: a task, or something that it has started."""
        found = self.slurm.processes(job.id)
        for task in list(found):
            with suppress(psutil.NoSuchProcess):
                found += task.children(recursive=True)
        if found:
            signal_all([self.random.choice(found)], signal.SIGKILL)
        return bool(found)

    def _terminate(self, job: QueuedJob) -> bool:
        return self.slurm.ask("scancel", "--signal=TERM", job.id).returncode == 0

    def _preempt(self, job: QueuedJob) -> bool:
        options = ("-p", "urgent", "--exclusive", "-N", str(len(job.nodes)), "-w", ",".join(job.nodes))
        return self.slurm.ask("sbatch", *options, "-o", "/dev/null", "--wrap", "true").returncode == 0

    def _take_down(self, job: QueuedJob) -> bool:
        node = self.random.choice(job.nodes)
        self.campaign.take_down(node)
        self.down.add(node)
        return True

    def _bring_back(self) -> None:
        for node in self.down:
            self.slurm.bring_back(node)
        self.down.clear()

    def _requeue(self, job: QueuedJob) -> bool:
        return self.slurm.ask("scontrol", "requeue", job.id).returncode == 0

    def _cancel(self, job: QueuedJob) -> bool:
        return stage_of(job) == "evaluate" and self.slurm.ask("scancel", job.id).returncode == 0

    def _doom_backfill(self, _: QueuedJob) -> bool:
        """The back-fill is to be killed when it comes: it is there for less than a second."""
        was_doomed, self.backfill_is_to_die = self.backfill_is_to_die, True
        return not was_doomed

    def _kill_doomed(self, jobs: list[QueuedJob]) -> None:
        for job in jobs:
            if self.backfill_is_to_die and stage_of(job) == "backfill" and job.state == "RUNNING" and self._kill(job):
                self.backfill_is_to_die = False
                self._happened("SIGKILL of the back-fill", job)

    def _kill_launch(self, _: QueuedJob | None) -> bool:
        """Launch, and kill that at any moment, while it submits at the latest."""
        command = [sys.executable, "-m", "reprokit.launch", "recipe=tiny.yaml", "cluster=cluster.yaml", STAGES]
        with subprocess.Popen(command, cwd=self.campaign.folder, stdout=subprocess.DEVNULL, stderr=-3) as launch:
            with suppress(subprocess.TimeoutExpired):
                launch.wait(self.random.uniform(0.1, 1.0))
            if launch.poll() is None:
                launch.kill()
                self._happened("SIGKILL of a launch", None)
        return True

    def _seconds_since_sample(self, job: QueuedJob) -> float | None:
        """How long this start of an element has worked since it logged a sample; None before its first."""
        restart = max((start.restart for start in self.campaign.starts("evaluate") if start.job == job.id), default=0)
        times = []
        for path in self.campaign.run.root.glob(f"evaluation/step_*/log/*.{job.id}.{restart}.*.jsonl"):
            with suppress(OSError):
                times.append(path.stat().st_mtime)
        return max(0.0, time.time() - max(times)) if times else None

    def lost_in_training(self) -> list[float]:
        """Seconds of steps that were taken and had to be taken again, of each start that lost some."""
        found = []
        for path in sorted((self.campaign.run.root / "train").glob("metrics.attempt_*.jsonl")):
            steps = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
            found.append(sum(step["seconds"] for step in steps))
        return found

    def lost_in_evaluation(self) -> list[float]:
        return [event.unsaved for event in self.events if event.unsaved is not None]

    def summary(self) -> str:
        """What befell the campaign and what it cost, in lines."""
        starts = [start for start in read_starts(self.campaign.run)]
        by_kind = Counter(event.kind for event in self.events)
        of_stage = Counter(start.stage for start in starts)
        return "\n".join(
            [
                f"{len(self.events)} events in {time.monotonic() - self.began:.0f} s, seed {self.seed}",
                *(f"  {count:4} {kind}" for kind, count in by_kind.most_common()),
                f"starts: {', '.join(f'{count} of {stage}' for stage, count in of_stage.items())}",
                f"restarts by Slurm: {sum(start.restart > 0 for start in starts)}, last round "
                f"{self.campaign.submitted().round}, launches by hand that were needed: {self.launches_by_hand}",
                f"work lost in training: {in_words(self.lost_in_training())}",
                f"work lost in evaluation: {in_words(self.lost_in_evaluation())}",
            ]
        )


def in_words(seconds: list[float]) -> str:
    if not seconds:
        return "none"
    middle, most = statistics.median(seconds), max(seconds)
    return f"median {middle:.2f} s, max {most:.2f} s, {len(seconds)} times"
