"""A tiny campaign on a real Slurm, what goes wrong around it, and what must be equal in the end."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from reprokit.cluster.queue import QueuedJob, queued
from reprokit.records import manifest
from reprokit.records.files import read_json
from reprokit.records.record import read_results
from reprokit.records.run_directory import RunDirectory, SubmittedJobs
from reprokit.records.starts import Start, read_starts
from tests.conftest import launch
from tests.slurm_cluster import devcluster

PATIENCE_SECONDS = 600
STAGES = "stages=train,evaluate,score,collect"
RECIPE = """\
name: tiny
model:
  name: Qwen3-tiny
  config: {{model_type: qwen3, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
    head_dim: 32, intermediate_size: 48, tie_word_embeddings: false, max_position_embeddings: 256}}
  tokenizer_vocab_size: 350
data: {{name: Countdown-CoT, generator: countdown, rows: {rows}, max_length: 256}}
training: {{learning_rate: 3.0e-3, epochs: 1, global_batch_size: 4, micro_batch_tokens: 256, precision: fp32,
  gradient_checkpointing: false, checkpoint_steps: {checkpoints}, state_every: {state_every}}}
evaluation:
  max_tokens: 16
  requests_at_a_time: 1  # tokens do not depend on what else the engine was at
  benchmarks:
    countdown: {{items: {items}, samples: 2}}
    chain_sum: {{items: {items}}}
"""
PROFILE = """\
environment: {{SLURM_CONF: {conf}}}
partition: {partition}
max_parallel: 2
checkpoints_per_element: 2
train: {{{train}, hours: {hours}}}
evaluate: {{gpus_per_node: 1, hours: 0.5}}
score: {{hours: 0.1}}
collect: {{hours: 0.1}}
"""
TWO_NODES, ONE_NODE = "nodes: 2, gpus_per_node: 1", "tasks_per_node: 2, gpus_per_node: 2"
# What a result says of how it came about, and that rightly differs when its jobs were disturbed: which jobs they were,
# how fast they went, how the engine got the weights, where the last start went on.
OF_HISTORY = {
    *("code", "slurm", "tokens_per_second", "engine_seconds", "weights", "swap_test", "resumed_at", "spent"),
    "made_from",  # of details: the digest of the samples, which have their seconds
}


def wait_for(what: str, condition: Callable[[], bool], poll: float = 0.05) -> None:
    """Return as soon as the condition holds; a failure after a time that no working machine takes."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"no {what} within {PATIENCE_SECONDS} s"
        time.sleep(poll)


@dataclass(frozen=True)
class Slurm:
    """A development cluster, as its administrator and its users see it."""

    conf: Path

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of Slurm's commands, whatever comes of it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        environment["SLURM_CONF"] = str(self.conf)
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)

    def tell(self, *words: str) -> str:
        """Run one of Slurm's commands that must succeed."""
        done = self.ask(*words)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def preempt(self, nodes: Sequence[str]) -> None:
        """Have a job of higher priority take whole nodes, and wait until it is through."""
        options = ("-p", "urgent", "--exclusive", "-N", str(len(nodes)), "-w", ",".join(nodes), "-o", "/dev/null")
        job_id = self.tell("sbatch", "--parsable", *options, "--wrap", "true")
        wait_for(f"end of urgent job {job_id}", lambda: all(job.id != job_id for job in self.jobs()))

    def bring_back(self, node: str) -> None:
        """Let a node that is down take jobs; it may have come back by itself before."""
        self.ask("scontrol", "update", f"nodename={node}", "state=resume")

    def restart_controller(self) -> None:
        restarted = devcluster("restart", "--folder", self.conf.parent)
        assert restarted.returncode == 0, restarted.stderr

    @contextlib.contextmanager
    def configured(self, line: str) -> Iterator[None]:
        """The cluster with one more line in its configuration."""
        before = self.conf.read_text()
        try:
            self.conf.write_text(f"{before}{line}\n")
            self.tell("scontrol", "reconfigure")
            yield
        finally:
            self.conf.write_text(before)
            self.tell("scontrol", "reconfigure")

    def jobs(self) -> list[QueuedJob]:
        return queued(str(self.conf))

    def processes(self, job_id: str) -> list[psutil.Process]:
        """The tasks of a job or an array element, not what they have started."""
        job, _, element = job_id.partition("_")
        named = f"SLURM_ARRAY_JOB_ID={job}" if element else f"SLURM_JOB_ID={job}"
        wanted = {f"SLURM_CONF={self.conf}", named} | ({f"SLURM_ARRAY_TASK_ID={element}"} if element else set())
        return [task for task in _tasks() if wanted <= _environment(task)]


def _tasks() -> Iterator[psutil.Process]:
    for process in psutil.process_iter(["cmdline"]):
        if "submitit.core._submit" in (process.info["cmdline"] or []) and process.name() not in ("bash", "srun"):
            yield process


def _environment(process: psutil.Process) -> set[str]:
    try:
        variables = Path(f"/proc/{process.pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return set()
    return {os.fsdecode(variable) for variable in variables}


class Campaign:
    """The tiny campaign in a folder of its own, on a Slurm."""

    def __init__(self, folder: Path, slurm: Slurm, prepared: Path, profile: str = "", **changed: Any) -> None:
        """`prepared`: a folder in which the inputs of the run were made. `profile`: further lines of the profile."""
        self.folder, self.slurm = folder, slurm
        self.run = RunDirectory(folder / "runs" / "tiny")
        shutil.copytree(prepared, folder)
        values = {"conf": slurm.conf, "partition": "main", "train": TWO_NODES, "hours": 0.5, **changed}
        (folder / "cluster.yaml").write_text(PROFILE.format(**values) + profile)
        self.off_lost_nodes: set[str] = set()  # ids of jobs that have not begun again since

    def launch(self) -> subprocess.CompletedProcess[str]:
        """Type the launch; it must do its work."""
        done = launch(self.folder, "recipe=tiny.yaml", "cluster=cluster.yaml", STAGES)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def jobs(self) -> list[QueuedJob]:
        """What Slurm has of this campaign. Jobs that only wait for the time of their restart are let go at once.

        Not those that lost a node: Slurm does not wait until they have ended there, and drains a node that is given the
        same job again before.
        """
        found = [job for job in self.slurm.jobs() if Path(job.script).is_relative_to(self.folder)]
        for job in found:
            if job.state == "RUNNING":
                self.off_lost_nodes.discard(job.id)
            elif job.reason == "BeginTime" and job.id not in self.off_lost_nodes:
                self.slurm.ask("scontrol", "update", f"jobid={job.id}", "starttime=now")
        return found

    def take_down(self, node: str) -> None:
        """Set a node down, as an administrator does when it has failed; its jobs end at once."""
        self.off_lost_nodes |= {job.id for job in self.jobs() if node in job.nodes}
        self.slurm.tell("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def running(self, stage: str) -> list[QueuedJob]:
        """Jobs and elements of a stage that run, in the order of their ids."""
        found = [job for job in self.jobs() if job.state == "RUNNING" and stage_of(job) == stage]
        return sorted(found, key=lambda job: job.id)

    def starts(self, stage: str) -> list[Start]:
        return [start for start in read_starts(self.run) if start.stage == stage]

    def submitted(self) -> SubmittedJobs:
        return read_json(self.run.jobs, SubmittedJobs)

    def log(self, start: Start) -> str:
        """Everything that the first task of the job of a start has said."""
        (path,) = self.run.logs.glob(f"*/{start.stage}/{start.job}_0_log.out")
        return path.read_text(errors="replace")

    def trained(self) -> int:
        """Steps of which the metrics tell."""
        return self.run.metrics.read_bytes().count(b"\n") if self.run.metrics.exists() else 0

    def drawn(self, step: int) -> int:
        """Samples of a checkpoint that were logged and not gathered yet."""
        return sum(path.read_bytes().count(b"\n") for path in self.run.sample_logs(step).glob("*.jsonl"))

    def is_complete(self) -> bool:
        path = self.folder / "results" / "tiny.json"
        return path.exists() and not read_results(path).missing

    def wait_until_over(self) -> None:
        wait_for("end of all jobs", lambda: not self.jobs(), poll=0.3)

    @contextlib.contextmanager
    def stopped_in(self, stage: str, moment: Callable[[], bool], number: int = 0) -> Iterator[QueuedJob]:
        """Stop the tasks of the running job of a stage as soon as `moment` has come, so that it does not pass.

        Slurm lets them go on with the signals that it sends; those that it does not are let go after the block.
        """
        asked = time.monotonic()

        def has_come() -> bool:
            nonlocal asked
            if time.monotonic() > asked + 1:  # not each time: it would take the processor from the jobs
                asked = time.monotonic()
                self.jobs()
            return moment() and bool(self.running(stage))

        wait_for(f"the moment in {stage}", has_come, poll=0.01)
        job = self.running(stage)[number]
        tasks = self.slurm.processes(job.id)
        assert tasks, f"job {job.id} has no tasks"
        signal_all(tasks, signal.SIGSTOP)
        try:
            yield job
        finally:
            signal_all(tasks, signal.SIGCONT)


def stage_of(job: QueuedJob) -> str:
    """The stage of a job of a campaign: further arrays of a stage have a number behind its name."""
    return job.name.partition(".")[0]


def signal_all(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def outcome(campaign: Campaign) -> dict[str, Any]:
    """All that a campaign has made: sha256 of every file of its checkpoints, results, details, texts of the samples."""
    run, results = campaign.run, campaign.folder / "results"
    collected = content(results / "tiny.json")
    made_by = collected["provenance"]
    records = [{**record, "provenance": made_by[record["provenance"]]} for record in collected["records"]]
    return {
        "checkpoints": digests(run),
        "records": without_history(records),
        "missing": collected["missing"],
        "training": without_history(made_by["training"]),
        "details": without_history(content(results / "details" / "tiny.json")),
        "samples": samples(run),
    }


def content(path: Path) -> Any:
    """A JSON file as it is, whatever the fields."""
    return json.loads(path.read_text())


def digests(run: RunDirectory) -> dict[str, str]:
    """sha256 of every file of every checkpoint."""
    found = {}
    for folder in sorted((run.root / "checkpoints").glob("step_*")):
        files = read_json(folder / manifest.NAME, manifest.Manifest).files
        found |= {f"{folder.name}/{name}": entry.sha256 for name, entry in files.items()}
    return found


def samples(run: RunDirectory) -> dict[str, dict[str, Any]]:
    """Every sample without its seconds, by cell, item and number."""
    found = {}
    for path in sorted((run.root / "evaluation").glob("step_*/*/samples.jsonl")):
        for line in path.read_text().splitlines():
            sample = json.loads(line)
            del sample["seconds"]
            name = f"{path.parent.parent.name}/{path.parent.name}/{sample['item']}/{sample['sample']}"
            assert name not in found, f"{name} was drawn twice"
            found[name] = sample
    return found


def without_history(value: Any) -> Any:
    """The same without what is of how it came about."""
    if isinstance(value, dict):
        return {name: without_history(part) for name, part in value.items() if name not in OF_HISTORY}
    return [without_history(part) for part in value] if isinstance(value, list) else value


def prepare(folder: Path, *, rows: int, checkpoints: list[int], state_every: int, items: int) -> Path:
    """A folder in which the inputs of the tiny campaign are made, and nothing else."""
    text = RECIPE.format(rows=rows, checkpoints=checkpoints, state_every=state_every, items=items)
    (folder / "tiny.yaml").write_text(text)
    done = launch(folder, "recipe=tiny.yaml", "cluster=local", "stages=prepare")
    assert done.returncode == 0, done.stdout + done.stderr
    shutil.rmtree(folder / "runs" / "tiny" / "logs")
    return folder
