"""Trainings whose ranks are forked from one process that has done the imports, so that killing them is cheap.

`python -m tests.forked_ranks JOBS` runs the jobs of a JSON list one after the other and prints what became of each.
"""

from __future__ import annotations

import gc
import json
import os
import random
import resource
import signal
import socket
import sys
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from reprokit.errors import Interrupted
from reprokit.leaving import SIGNALS, Leaving
from reprokit.records.run_directory import RunDirectory

LEFT = 75


@dataclass
class Job:
    """A training of the prepared run folder `root`, killed `kills` times and then left to come to its end.

    training: settings that differ from the recipe; threshold: elements up to which ZeRO-3 keeps a parameter whole;
    shard_bytes: largest file of a checkpoint or state; file_limit: bytes after which the disk of the last rank is full;
    worlds: number of ranks of each attempt, the last one for all that follow; kill_at: step at which to kill;
    without it: a random moment; told: instead of being killed, one rank or all are told to leave, by SIGUSR2 or SIGTERM
    or both.
    """

    root: str
    worlds: list[int]
    training: dict[str, Any] = field(default_factory=dict)
    threshold: int = 0
    shard_bytes: int = 5 * 10**9
    file_limit: int | None = None
    kills: int = 0
    kill_at: int | None = None
    told: bool = False


@dataclass
class Attempt:
    """What became of one attempt.

    codes: exit status of each rank, LEFT of one that left as told; moment: what was waited for before the kill;
    writing: whether a checkpoint or state was half written then; reached: last step with metrics; kept: last step with
    a state.
    """

    codes: list[int]
    moment: str
    writing: bool
    reached: int
    kept: int


def main(jobs: list[Job]) -> None:
    os.environ.update(DS_ACCELERATOR="cpu", OMP_NUM_THREADS="1")
    import deepspeed.runtime.zero.muon.muon_optimizer  # noqa: F401
    import torch
    import transformers.models.qwen3.modeling_qwen3  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    from reprokit.training import loop  # noqa: F401

    torch.set_num_threads(1)
    gc.freeze()  # the ranks need not look through all that was imported
    draw = random.Random(1)
    done = [[asdict(attempt) for attempt in run(job, draw)] for job in jobs]
    print(json.dumps(done), flush=True)


def run(job: Job, draw: random.Random) -> list[Attempt]:
    worlds = [*job.worlds, *[job.worlds[-1]] * (job.kills + 1 - len(job.worlds))]
    return [attempt(job, world, number < job.kills, draw) for number, world in enumerate(worlds)]


def attempt(job: Job, world: int, kill: bool, draw: random.Random) -> Attempt:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    before = lines(job)
    ranks = [fork(job, rank, world, port) for rank in range(world)]
    moment, writing = "end", False
    if kill:
        moment = "step" if job.kill_at is not None else draw.choice(["start", "step", "step", "step", "write", "write"])
        await_moment(job, moment, before, draw, ranks)
        writing = is_writing(job)
        end(job, draw, ranks)
    codes = [os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks]
    return Attempt(codes, moment, writing, lines(job), RunDirectory(Path(job.root)).resume_step())


def end(job: Job, draw: random.Random, ranks: list[int]) -> None:
    """Kill the ranks, or tell some of them to leave, as a scheduler does: all at nearly the same time, or again."""
    draw.shuffle(ranks)
    for rank in ranks[: draw.choice([1, len(ranks)])] if job.told else ranks:
        for number in draw.choice([SIGNALS[:1], SIGNALS[1:], SIGNALS]) if job.told else [signal.SIGKILL]:
            os.kill(rank, number)
            time.sleep(draw.uniform(0, 0.02))


def await_moment(job: Job, moment: str, before: int, draw: random.Random, ranks: list[int]) -> None:
    """Return at the moment to kill, or when a rank has ended."""
    if moment == "start":
        time.sleep(draw.uniform(0, 2.5))
        return
    target = job.kill_at if job.kill_at is not None else draw.randint(1, 5)
    stamp = (Path(job.root) / "train" / "metrics.jsonl").stat().st_mtime_ns if before else 0
    written = 0
    while all(os.waitid(os.P_PID, rank, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None for rank in ranks):
        path = Path(job.root) / "train" / "metrics.jsonl"
        now = path.stat().st_mtime_ns if path.exists() else stamp
        written, stamp = written + (now != stamp), now
        if moment == "write" and written and is_writing(job):
            break
        if moment == "step" and (lines(job) >= target if job.kill_at is not None else written >= target):
            break
        time.sleep(0.002)
    if job.kill_at is None:
        time.sleep(draw.uniform(0, 0.02 if moment == "write" else 0.1))


def is_writing(job: Job) -> bool:
    return any(Path(job.root).glob("*/.step_*.partial"))


def lines(job: Job) -> int:
    """Complete lines of metrics."""
    path = Path(job.root) / "train" / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def fork(job: Job, rank: int, world: int, port: int) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until the child listens
    child = os.fork()
    if child:
        return child
    code = 1
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)  # when it has left, as in a job
    try:
        with Leaving() as leaving, leaving.polled():
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            train(job, rank, world, port, leaving)
        code = 0
    except Interrupted:
        code = LEFT
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def train(job: Job, rank: int, world: int, port: int, leaving: Leaving) -> None:
    variables = {"RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in variables.items()})
    from reprokit.recipe import load_resolved
    from reprokit.recipe.schema import Arithmetic, Precision
    from reprokit.training import engine, loop, shards, state

    shards.MAX_SHARD_BYTES = job.shard_bytes
    prune = state.prune
    state.prune = lambda run, keep: prune(run, keep or state.KEPT)  # tests look at what a finished training removes
    if job.file_limit is not None and rank == world - 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (job.file_limit, job.file_limit))
    engine.initialise_distributed(rank, 1)
    usual = engine.deepspeed_config

    def config(*arguments: Any) -> dict[str, Any]:
        made = usual(*arguments)
        made["zero_optimization"]["stage3_param_persistence_threshold"] = job.threshold
        return made

    engine.deepspeed_config = config
    directory = RunDirectory(Path(job.root))
    recipe = load_resolved(directory.recipe)
    kinds = {"arithmetic": Arithmetic, "precision": Precision}
    for key, value in job.training.items():
        setattr(recipe.training, key, kinds[key](value) if key in kinds else value)
    progress = directory.root / "progress.json"
    loop.train(directory, recipe, rank=rank, world_size=world, progress=progress, leaving=leaving)
    engine.leave_distributed()


if __name__ == "__main__":
    main([Job(**job) for job in json.loads(sys.argv[1])])
