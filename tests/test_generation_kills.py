"""Generating workers on a real Slurm, killed at random moments and restarted with other numbers of workers."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from contextlib import suppress

import psutil
import pytest

from reprokit.cluster import slurm as slurm_jobs
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources
from reprokit.records.files import read_json
from reprokit.records.result import Cell, Generation
from reprokit.records.run_directory import RunDirectory
from tests import held
from tests.generating import (
    all_keys,
    assert_same_greedy,
    generate,
    generated,
    keys,
    make_run,
    set_items,
    wait_for,
)

# Responses end where the context does: the longer the problem, the sooner, so that they do not all end at once.
SETTINGS = {
    "countdown": {"items": 120, "samples": 2, "context": 200, "temperature": 0.0},
    "chain_sum": {"items": 30, "max_tokens": 80, "temperature": 0.0},
}
STEPS = (0, 2)
CELLS = [Cell(step, name) for step in STEPS for name in SETTINGS]
TOTAL = len(STEPS) * sum(len(all_keys(own)) for own in SETTINGS.values())
# Of every start: nodes, tasks per node, elements of the array (each has a checkpoint, or one has both); and how it is
# killed.
STARTS = [((2, 1, 1), "one"), ((1, 1, 1), "early"), ((1, 2, 1), "all"), ((1, 1, 2), "step"), ((2, 2, 1), "one")]
MORE = 30  # samples that a start draws at most before it is killed, but for those that end in the same step


def submit(run: RunDirectory, environment: dict[str, str], shape: tuple[int, int, int], limit: int) -> str:
    """Submit the evaluation array for what is missing, up to `limit` samples of the run; returns its id."""
    nodes, tasks, elements = shape
    resources = Resources(nodes=nodes, tasks_per_node=tasks, hours=0.5)
    profile = ClusterProfile(partition="main", environment=environment, evaluate=resources)
    missing = [cell for cell in CELLS if not generated(run, cell)]
    steps = sorted({cell.step for cell in missing})
    groups = [missing] if elements == 1 else [[cell for cell in missing if cell.step == step] for step in steps]
    arguments = tuple((limit, run.root, group, 1, 512) for group in groups)
    job = Job("tiny", "evaluate", held.evaluate, arguments, resources)
    return slurm_jobs.submit([job], profile, run.root / "logs", lambda ids: None)["evaluate"]


def command(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def workers_of(job_id: str) -> list[psutil.Process]:
    """The generating processes of a job, on all nodes: this machine is all of them."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        words, variables = process.info["cmdline"] or [], process.info["environ"] or {}
        if "submitit.core._submit" in words and variables.get("SLURM_ARRAY_JOB_ID", variables.get("SLURM_JOB_ID")):
            if job_id in (variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_JOB_ID")):
                found += [process] if "SLURM_PROCID" in variables else []
    return found


def kill(job_id: str, how: str) -> None:
    """Kill workers of a job in one of the ways that follow; returns when the job is gone.

    `step` and `early`: Slurm kills all; `all`: all die at once; `one`: one dies, and Slurm ends the others.
    """
    if how in ("step", "early"):  # of the whole job it would be SIGTERM first, and SIGKILL after KillWait
        steps = command("squeue", "--steps", "-h", "-j", job_id, "-o", "%i").split()
        command("scancel", "--signal=KILL", *[step for step in steps if step.endswith(".0")])
    for worker in {"all": workers_of(job_id), "one": workers_of(job_id)[:1]}.get(how, []):
        with suppress(psutil.NoSuchProcess):
            worker.kill()
    wait_for(lambda: not workers_of(job_id))
    subprocess.run(["scancel", job_id], capture_output=True)  # elements that have not started
    wait_for(lambda: not command("squeue", "-h").strip())


def lines(run: RunDirectory) -> dict[tuple[int, str, str, int], float]:
    """(step, benchmark, item, sample) -> seconds of every whole line of the logs and of what is gathered."""
    found: dict[tuple[int, str, str, int], float] = {}
    for step in STEPS:
        for path in [*run.sample_logs(step).glob("*.jsonl"), *run.cell(step, "").glob("*/samples.jsonl")]:
            for line in path.read_bytes().splitlines(keepends=True):
                if line.endswith(b"\n"):
                    row = json.loads(line)
                    key = (step, row["benchmark"], row["item"], row["sample"])
                    assert found.setdefault(key, row["seconds"]) == row["seconds"], f"{key} was drawn twice"
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    run = make_run(tmp_path_factory.mktemp("undisturbed") / "tiny", SETTINGS, steps=STEPS)
    set_items(run, "countdown", [f"Use {n}" + " and" * (n % 60) for n in range(120)])
    shutil.copytree(run.root, run.root.with_name("disturbed"))
    generate(run, "1", 1, CELLS)
    return run


def test_kills_and_restarts_of_every_kind_give_the_samples_of_an_undisturbed_run(
    undisturbed: RunDirectory, slurm: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_CONF", slurm["SLURM_CONF"])
    run = RunDirectory(undisturbed.root.with_name("disturbed"))
    chance = random.Random(5)
    kept: dict[tuple[int, str, str, int], float] = {}
    for number, (shape, how) in enumerate(STARTS):
        job_id = submit(run, slurm, shape, limit=len(kept) + MORE)
        if how == "early":  # while the engines start
            wait_for(lambda job_id=job_id: bool(workers_of(job_id)))
            time.sleep(chance.uniform(0, 8))
        else:
            moment = len(kept) + chance.randint(1, MORE)
            wait_for(lambda moment=moment: len(lines(run)) >= moment, patience=300)
        kill(job_id, how)
        now = lines(run)
        assert kept.items() <= now.items()  # nothing that was logged is lost, or drawn again
        kept = now
        print(f"start {number}: {len(kept)} of {TOTAL} samples")
    assert 0 < len(kept) < TOTAL
    finishing = submit(run, slurm, (2, 1, 1), limit=2 * TOTAL)  # none is reached, even while some stand twice
    wait_for(lambda: not command("squeue", "-h").strip(), patience=300)
    for cell in CELLS:
        assert generated(run, cell), end_of_logs(run)
        assert keys(run, cell) == all_keys(SETTINGS[cell.benchmark])
        assert_same_greedy(run, undisturbed, cell)
    assert kept.items() <= lines(run).items()
    assert not any(run.sample_logs(step).exists() for step in STEPS)
    made = [read_json(run.generation(cell.step, cell.benchmark), Generation).provenance for cell in CELLS]
    assert finishing in {found["slurm"]["SLURM_JOB_ID"] for found in made}
    assert all(found["engine_seconds"] > 0 and found["tokens_per_second"] > 0 for found in made)


def end_of_logs(run: RunDirectory) -> str:
    newest = sorted(run.root.glob("logs/**/*.out"), key=lambda path: path.stat().st_mtime)[-2:]
    return "\n".join(path.read_text(errors="replace")[-1500:] for path in newest)
