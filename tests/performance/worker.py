"""One process of a side: `python -m tests.performance.worker '<Job as JSON>'`.

Every side first trains a few short rows apart, so that nothing is timed that happens once, then the epoch from its
first step to its last. What it reports counts tokens of rows, never padding.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import msgspec
import torch

from reprokit.records.run_directory import RunDirectory
from reprokit.training.telemetry import peak_memory_gib
from tests.performance.sides import Job, Measured
from tests.performance.workload import rows_of

LEARNING_RATE = 1e-4


def train_ours(job: Job) -> Measured:
    """The kit's own loop, without checkpoints and states."""
    from reprokit.recipe.schema import Arithmetic, Recipe, TrainingSection
    from reprokit.training import engine, loop

    given = dict(job.side.settings)
    training = TrainingSection(
        arithmetic=Arithmetic[given.pop("arithmetic", "standard")],
        learning_rate=LEARNING_RATE,
        epochs=1,
        global_batch_size=job.workload.global_batch_size,
        micro_batch_size=job.workload.micro_batch_size,
        precision=job.workload.precision,
        checkpoint_steps=[],
        state_every=10**9,
        **{"gradient_checkpointing": False, **given},
    )
    engine.initialise_distributed(job.rank, job.side.threads)
    for name, source in (("warm_up", Path(job.prepared) / "warm_up"), ("epoch", Path(job.prepared))):
        run = RunDirectory(Path(job.work) / name)
        if job.rank == 0:
            for part in ("tokenizer", "data", "checkpoints"):
                shutil.copytree(source / part, run.root / part)
        torch.distributed.barrier()
        loop.train(
            run,
            Recipe(training=training),
            rank=job.rank,
            world_size=job.side.processes,
            progress=run.root / "progress.json",
        )
    torch.distributed.barrier()  # rank 0 has written all metrics
    steps = [msgspec.json.decode(line) for line in run.metrics.read_bytes().splitlines()]
    seconds = sum(step["seconds"] for step in steps)
    used = [step["mfu"] * step["seconds"] for step in steps if step["mfu"] is not None]
    return Measured(
        tokens=sum(step["tokens"] for step in steps),
        target_tokens=sum(step["target_tokens"] for step in steps),
        seconds=seconds,
        steps=len(steps),
        peak_memory_gib=max(step["peak_memory_gib"] for step in steps),
        mfu=sum(used) / seconds if used else None,
    )


def train_trl(job: Job) -> Measured:
    """TRL's SFTTrainer."""
    from tests.performance.trl_trainer import train

    train(RunDirectory(Path(job.prepared) / "warm_up"), job)
    return train(RunDirectory(Path(job.prepared)), job)


def train_padded(job: Job) -> Measured:
    """Official arithmetic in plain PyTorch, every row padded to the longest of the data."""
    from tests import reference_official as official

    settings = official.Settings(
        learning_rate=LEARNING_RATE,
        epochs=1,
        global_batch_size=job.workload.global_batch_size,
        micro_batch_size=job.workload.micro_batch_size,
        dtype=getattr(torch, job.workload.precision.dtype),
    )
    prepared = Path(job.prepared)
    for folder in (prepared / "warm_up", prepared):
        rows = rows_of(RunDirectory(folder))
        seconds = official.train(prepared / "model", rows, settings, device()).seconds
    return Measured(
        tokens=sum(len(ids) for ids, _ in rows),
        target_tokens=sum(len(ids) - prompt_length for ids, prompt_length in rows),
        seconds=sum(seconds),
        steps=len(seconds),
        peak_memory_gib=peak_memory_gib(),
    )


TRAINERS = {"ours": train_ours, "trl": train_trl, "padded": train_padded}


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main(job: Job) -> None:
    torch.set_num_threads(job.side.threads)
    measured = TRAINERS[job.side.trainer](job)
    if job.rank == 0:
        (Path(job.work) / "measured.json").write_bytes(msgspec.json.encode(measured))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1].encode(), type=Job))
