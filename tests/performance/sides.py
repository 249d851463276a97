"""The sides of a benchmark: started one after the other, again and again, and summed up."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Optional

import msgspec

from reprokit.records.run_directory import RunDirectory
from tests.performance import workload as workloads
from tests.performance.workload import Workload

ROOT = Path(__file__).parents[2]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """How to train: `trainer` is a name in `worker.TRAINERS`, `threads` is per process.

    settings: fields of `TrainingSection` for ours, of TRL's `SFTConfig` for TRL; there `model` has arguments of
    `from_pretrained`.
    """

    name: str
    trainer: str
    processes: int = 1
    threads: int = 1
    settings: dict[str, Any] = msgspec.field(default_factory=dict)


class Measured(msgspec.Struct, kw_only=True):
    """One epoch: tokens and target tokens without padding, wall time, optimiser steps; mfu from ours on a GPU only."""

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
    """What one process does; `prepared` is the folder of `workload.prepare`, `work` one for what it writes."""

    side: Side
    workload: Workload
    prepared: str
    work: str
    rank: int


class SideFailed(Exception):
    """A process of a side failed; the message ends with what it said."""


def measure(side: Side, workload: Workload, prepared: RunDirectory) -> Measured:
    """Train one epoch of the prepared workload in processes of its own.

    Raises:
        SideFailed: a process ended with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        ports = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        ranks = []
        for rank in range(side.processes):
            job = Job(side=side, workload=workload, prepared=str(prepared.root), work=folder, rank=rank)
            command = [sys.executable, "-m", "tests.performance.worker", msgspec.json.encode(job).decode()]
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": side.processes, "OMP_NUM_THREADS": side.threads}
            environment = {**os.environ, **ports, **{name: str(number) for name, number in numbers.items()}}
            with (work / f"rank_{rank}.log").open("w") as log:
                ranks.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log))
        codes = [process.wait() for process in ranks]
        if any(codes):
            said = [(work / f"rank_{rank}.log").read_text()[-3000:] for rank, code in enumerate(codes) if code]
            raise SideFailed(f"{side.name} ended with {codes}\n" + "\n".join(said))
        return msgspec.json.decode((work / "measured.json").read_bytes(), type=Measured)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def alternate(
    sides: list[Side], workload: Workload, prepared: RunDirectory, rounds: int
) -> tuple[dict[str, list[Measured]], dict[str, str]]:
    """Measure all sides in each round, so that what disturbs one disturbs all.

    Returns what was measured, and for each side that failed (and was then left out) what it said.
    """
    found: dict[str, list[Measured]] = {side.name: [] for side in sides}
    failed: dict[str, str] = {}
    for number in range(1, rounds + 1):
        for side in sides:
            if side.name in failed:
                continue
            try:
                one = measure(side, workload, prepared)
            except SideFailed as error:
                failed[side.name] = str(error)
                print(f"round {number}: {error}", file=sys.stderr, flush=True)
                continue
            found[side.name].append(one)
            print(f"round {number}: {side.name}: {one.tokens_per_second:,.0f} tokens/s", file=sys.stderr, flush=True)
    return {name: measured for name, measured in found.items() if name not in failed}, failed


def summary(sides: list[Side], found: dict[str, list[Measured]]) -> dict[str, dict[str, Any]]:
    """Settings and figures of each side that was measured.

    `tokens_per_second` is the median over the rounds, `spread` the lowest and the highest. `ratio` is the median of
    (first side / this one) over the rounds, `ratio_range` the extremes; null if the first side failed.
    """
    made = {}
    first = [one.tokens_per_second for one in found.get(sides[0].name, [])]
    for side in (side for side in sides if side.name in found):
        rates = [one.tokens_per_second for one in found[side.name]]
        ratios = [ours / theirs for ours, theirs in zip(first, rates, strict=False)]
        last = found[side.name][-1]
        made[side.name] = {
            "tokens_per_second": round(median(rates), 1),
            "spread": [round(min(rates), 1), round(max(rates), 1)],
            "ratio": round(median(ratios), 3) if ratios else None,
            "ratio_range": [round(min(ratios), 3), round(max(ratios), 3)] if ratios else None,
            "rounds": len(rates),
            "tokens": last.tokens,
            "target_tokens": last.target_tokens,
            "steps": last.steps,
            "peak_memory_gib": round(max(one.peak_memory_gib for one in found[side.name]), 3),
            "mfu": last.mfu,
            **msgspec.to_builtins(side),
        }
    return made


def table(sides: dict[str, dict[str, Any]]) -> str:
    """The figures of `summary` for people."""
    lines = [f"{'':44} {'tokens/s':>9} {'range':>17} {'first/this':>10} {'range':>13} {'MFU':>5} {'GiB':>6}"]
    for name, side in sides.items():
        spread = "{:,.0f} to {:,.0f}".format(*side["spread"])
        ratio = "" if side["ratio"] is None else f"{side['ratio']:.2f}"
        ratios = "" if side["ratio"] is None else "{:.2f} to {:.2f}".format(*side["ratio_range"])
        mfu = "" if side["mfu"] is None else f"{side['mfu']:.1%}"
        rate, memory = f"{side['tokens_per_second']:,.0f}", f"{side['peak_memory_gib']:.2f}"
        lines.append(f"{name:44} {rate:>9} {spread:>17} {ratio:>10} {ratios:>13} {mfu:>5} {memory:>6}")
    return "\n".join(lines)


def compare(sides: list[Side], workload: Workload, rounds: int) -> dict[str, Any]:
    """Measure the sides on a workload, print what was found and return it: `workload`, `sides`, `failed`."""
    rows = workloads.describe(workload)
    with tempfile.TemporaryDirectory() as folder:
        found, failed = alternate(sides, workload, workloads.prepare(workload, Path(folder)), rounds)
    figures = summary(sides, found)
    print(
        f"\n{rows['rows']} rows, median {rows['length_median']:,.0f}, longest {rows['length_max']:,}, together "
        f"{rows['tokens']:,} tokens; {workload.global_batch_size} rows a step; rounds: {rounds}\n{table(figures)}",
        flush=True,
    )
    for name in failed:
        print(f"{name}: failed", flush=True)
    return {"workload": rows, "sides": figures, "failed": failed}
