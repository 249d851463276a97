"""The sides of a benchmark, each of them one epoch in processes of its own.

    python -m tests.performance.sides '<job as JSON>'

is one of these processes. Every side first trains one global batch apart, so that nothing is timed that happens once,
then the epoch from its first step to its last. What it reports counts tokens of rows, never padding.
"""

from __future__ import annotations

import os
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Optional

import msgspec
import torch

from reprokit.data import tokens
from reprokit.records.run_directory import RunDirectory
from tests.performance.workload import Workload

LEARNING_RATE = 1e-4
ROOT = Path(__file__).parents[2]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """How to train: `trainer` is a name in TRAINERS, `threads` is per process.

    settings: fields of `TrainingSection` for ours, of `SFTConfig` for TRL (and `model`, those of from_pretrained).
    """

    name: str
    trainer: str
    processes: int = 1
    threads: int = 2
    settings: dict[str, Any] = msgspec.field(default_factory=dict)


class Measured(msgspec.Struct, kw_only=True):
    """One epoch: tokens and target tokens of all rows, wall time, optimiser steps; mfu only from ours on a GPU."""

    tokens: int
    target_tokens: int
    seconds: float
    steps: int
    peak_memory_gib: float
    mfu: Optional[float] = None

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one process does; `prepared` is the folder of `workload.prepare`, `work` an empty one."""

    side: Side
    workload: Workload
    prepared: str
    work: str
    rank: int


def measure(side: Side, workload: Workload, prepared: RunDirectory) -> Measured:
    """Train one epoch of the prepared workload.

    Raises:
        RuntimeError: a process failed; the message ends with what it said.
    """
    with tempfile.TemporaryDirectory() as work, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        started = []
        for rank in range(side.processes):
            job = Job(side=side, workload=workload, prepared=str(prepared.root), work=work, rank=rank)
            command = [sys.executable, "-m", "tests.performance.sides", msgspec.json.encode(job).decode()]
            places = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(side.processes)}
            threads = {"OMP_NUM_THREADS": str(side.threads), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            log = (Path(work) / f"rank_{rank}.log").open("w+")
            process = subprocess.Popen(
                command, cwd=ROOT, env={**os.environ, **places, **threads}, stdout=log, stderr=subprocess.STDOUT
            )
            started.append((process, log))
        codes = [process.wait() for process, _ in started]
        said = [Path(log.name).read_text() for _, log in started]
        if any(codes):
            failed = max(range(len(codes)), key=lambda rank: abs(codes[rank]))
            raise RuntimeError(f"{side.name}: rank {failed} ended with {codes[failed]}\n{said[failed][-4000:]}")
        return msgspec.json.decode((Path(work) / "measured.json").read_bytes(), type=Measured)


def train_ours(job: Job) -> Measured:
    """The kit's own loop, without checkpoints and states."""
    from reprokit.recipe.schema import Arithmetic, Recipe, TrainingSection
    from reprokit.training import engine, loop

    workload, settings = job.workload, dict(job.side.settings)
    training = TrainingSection(
        arithmetic=Arithmetic[settings.pop("arithmetic", "standard")],
        learning_rate=LEARNING_RATE,
        epochs=1,
        global_batch_size=workload.global_batch_size,
        micro_batch_size=workload.micro_batch_size,
        precision=workload.precision,
        gradient_checkpointing=workload.gradient_checkpointing,
        checkpoint_steps=[],
        state_every=10**9,
        **settings,
    )
    engine.initialise_distributed(job.rank, job.side.threads)
    prepared = Path(job.prepared)
    for name, source in (("warm_up", prepared / "warm_up"), ("epoch", prepared)):
        run = RunDirectory(Path(job.work) / name)
        if job.rank == 0:
            for part in ("tokenizer", "data", "checkpoints"):
                shutil.copytree(source / part, run.root / part)
        torch.distributed.barrier()
        progress = run.root / "progress.json"
        loop.train(run, Recipe(training=training), rank=job.rank, world_size=job.side.processes, progress=progress)
    lines = [msgspec.json.decode(line) for line in run.metrics.read_bytes().splitlines()]
    seconds = sum(line["seconds"] for line in lines)
    used = [line["mfu"] * line["seconds"] for line in lines if line["mfu"] is not None]
    return Measured(
        tokens=sum(line["tokens"] for line in lines),
        target_tokens=sum(line["target_tokens"] for line in lines),
        seconds=seconds,
        steps=len(lines),
        peak_memory_gib=max(line["peak_memory_gib"] for line in lines),
        mfu=sum(used) / seconds if used else None,
    )


def train_trl(job: Job) -> Measured:
    """TRL's SFTTrainer."""
    from tests.performance.trl_side import train

    torch.set_num_threads(job.side.threads)
    train(Path(job.prepared) / "warm_up", job)
    return train(Path(job.prepared), job)


def train_padded(job: Job) -> Measured:
    """Official arithmetic in plain PyTorch, every row padded to the longest of the data."""
    from tests import reference_official as official

    torch.set_num_threads(job.side.threads)
    workload = job.workload
    settings = official.Settings(
        learning_rate=LEARNING_RATE,
        epochs=1,
        global_batch_size=workload.global_batch_size,
        micro_batch_size=workload.micro_batch_size,
        dtype=getattr(torch, workload.precision.dtype),
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = rows_of(Path(job.prepared))[: workload.steps * workload.global_batch_size]
    model = Path(job.prepared) / "model"
    official.train(model, rows[: workload.global_batch_size], settings, device)
    seconds = official.train(model, rows, settings, device).seconds
    return Measured(
        tokens=sum(len(ids) for ids, _ in rows),
        target_tokens=sum(len(ids) - prompt_length for ids, prompt_length in rows),
        seconds=sum(seconds),
        steps=len(seconds),
        peak_memory_gib=peak_memory_gib(),
    )


TRAINERS = {"ours": train_ours, "trl": train_trl, "padded": train_padded}


def rows_of(prepared: Path) -> list[tuple[list[int], int]]:
    """Token ids and prompt length of every row."""
    dataset = tokens.load(prepared / "data")
    return [(ids.tolist(), length) for ids, length in (dataset[index] for index in range(len(dataset)))]


def peak_memory_gib() -> float:
    """Largest memory that this process has held: allocated on its GPU, or resident on the CPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    mine = msgspec.json.decode(sys.argv[1].encode(), type=Job)
    measured = TRAINERS[mine.side.trainer](mine)
    if mine.rank == 0:
        (Path(mine.work) / "measured.json").write_bytes(msgspec.json.encode(measured))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
