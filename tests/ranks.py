"""Ranks of a training as processes of their own, for tests that want other settings than a launch gives."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from reprokit.records.run_directory import RunDirectory

_PORTS = itertools.count(29000 + os.getpid() % 2000)

# One process imports, which takes seconds, and forks the ranks; each writes what it says into files of its own.
# `extra` may patch what it likes before training begins: `engine`, `loop`, `recipe`, `rank`, `root` are there.
SCRIPT = """
import json, os, sys
from pathlib import Path
os.environ["DS_ACCELERATOR"] = "cpu"
root, world, port, threshold = Path(sys.argv[1]), *map(int, sys.argv[2:5])
settings, extra = json.loads(sys.argv[5]), sys.argv[6]
import torch
import deepspeed.runtime.zero.muon.muon_optimizer
import transformers.models.qwen3.modeling_qwen3
from reprokit.errors import UserError
from reprokit.recipe import load_resolved
from reprokit.recipe.schema import Arithmetic, Precision
from reprokit.records.run_directory import RunDirectory
from reprokit.training import engine, loop
children = []
for rank in range(world):
    child = os.fork()
    if child == 0:
        break
    children.append(child)
else:
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    print(json.dumps(codes))
    os._exit(0)
for number, name in ((1, "out"), (2, "err")):
    os.dup2(os.open(root / f"rank_{rank}.{name}", os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank), MASTER_ADDR="127.0.0.1",
    MASTER_PORT=str(port))
engine.initialise_distributed(rank, 1)
usual = engine.deepspeed_config
def config(*arguments):
    made = usual(*arguments)
    made["zero_optimization"]["stage3_param_persistence_threshold"] = threshold
    return made
engine.deepspeed_config = config
run = RunDirectory(root)
recipe = load_resolved(run.recipe)
for name, value in settings.items():
    kind = {"arithmetic": Arithmetic, "precision": Precision}.get(name)
    setattr(recipe.training, name, kind[value] if kind else value)
exec(extra)
try:
    loop.train(run, recipe, rank=rank, world_size=world, progress=root / "progress.json")
except UserError as error:
    print("UserError:", error, file=sys.stderr, flush=True)
    os._exit(2)
engine.leave_distributed()
sys.stdout.flush()
"""


def copy_prepared(prepared: RunDirectory, folder: Path) -> RunDirectory:
    """A run folder with the inputs of `prepared` and nothing else."""
    for name in ("tokenizer", "data", "checkpoints/step_000000"):
        shutil.copytree(prepared.root / name, folder / name)
    shutil.copyfile(prepared.recipe, folder / "recipe.yaml")
    return RunDirectory(folder)


def start_ranks(
    run: RunDirectory, world: int, *, threshold: int = 100_000, extra: str = "", **settings: Any
) -> list[subprocess.CompletedProcess[str]]:
    """Run `world` ranks to their end, with `settings` in place of those of the recipe's training.

    With threshold 0 every parameter is partitioned, gathered for use and released, as those of a large model are.
    """
    words = [str(world), str(next(_PORTS)), str(threshold), json.dumps(settings), extra]
    command = [sys.executable, "-c", SCRIPT, str(run.root), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    said = [[(run.root / f"rank_{rank}.{name}").read_text() for name in ("out", "err")] for rank in range(world)]
    return [subprocess.CompletedProcess(command, code, *text) for code, text in zip(codes, said, strict=True)]


def train(prepared: RunDirectory, folder: Path, world: int, **options: Any) -> RunDirectory:
    """Train what `prepared` has made ready once more, in `folder`; options as for `start_ranks`."""
    run = copy_prepared(prepared, folder)
    done = start_ranks(run, world, **options)
    assert [rank.returncode for rank in done] == [0] * world, done[0].stderr[-3000:]
    return run


def column(run: RunDirectory, name: str) -> list[Any]:
    """One field of every line of the run's metrics."""
    return [json.loads(line)[name] for line in run.metrics.read_text().splitlines()]
