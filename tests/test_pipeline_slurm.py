"""The whole way on a real Slurm: a two-node training job, an evaluation array, collection and figures."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from reprokit.records.files import read_json
from reprokit.records.record import read_results
from reprokit.records.result import CellResult
from reprokit.records.run_directory import RunDirectory, Stopped, SubmittedJobs
from reprokit.records.starts import read_starts
from tests.conftest import launch
from tests.slurm_cluster import has_accounting

PATIENCE_SECONDS = 600
PROFILE = """\
environment: {{SLURM_CONF: {conf}}}
partition: main
max_parallel: 2
train: {{nodes: 2, gpus_per_node: 1, hours: 0.5}}
evaluate: {{nodes: 2, gpus_per_node: 1, hours: 0.5}}
score: {{hours: 0.1}}
collect: {{hours: 0.1}}
"""


def command(environment: dict[str, str], *words: str) -> str:
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    return done.stdout


def accounted(environment: dict[str, str], job_id: str) -> list[list[str]]:
    """Rows of JobID, State and NNodes that sacct has of a job."""
    shown = command(environment, "sacct", "-n", "-P", "-X", "-j", job_id, "--format=JobID,State,NNodes")
    return [line.split("|") for line in shown.splitlines()]


def failed_logs(folder: Path) -> str:
    """How the logs below `folder` end that do not end well: why a test failed on a machine that is gone by then."""
    ends = []
    for path in sorted(folder.glob("runs/*/logs/**/*.out")):
        text = path.read_text(errors="replace").rstrip()
        if not text.endswith("Exiting after successful completion"):
            ends.append(f"==> {path.relative_to(folder)}\n{text[-2000:]}")
    return "\n".join(ends) or "no log ends badly"


def wait_until_gone(environment: dict[str, str]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while waiting := command(environment, "squeue", "-h", "-o", "%i %T %r").strip():
        assert time.monotonic() < deadline, waiting
        time.sleep(1)


@pytest.fixture(scope="module")
def profile(slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profile") / "cluster.yaml"
    path.write_text(PROFILE.format(conf=slurm["SLURM_CONF"]))
    return path


@pytest.fixture(scope="module")
def submitted(
    tiny_recipe: Path, profile: Path, slurm: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a finished campaign; while it ran, a second launch was tried."""
    folder = tmp_path_factory.mktemp("slurm")
    words = (f"recipe={tiny_recipe}", f"cluster={profile}")
    first = launch(folder, *words)
    assert first.returncode == 0, first.stdout + first.stderr
    ids = read_json(folder / "runs/tiny/jobs.json", SubmittedJobs).ids
    assert all(f"reprokit.{word} " in first.stdout for word in ("status", "cancel")) and ids["train"] in first.stdout
    second = launch(folder, *words)
    assert second.returncode == 0 and "already at work" in second.stdout, second.stdout + second.stderr
    assert read_json(folder / "runs/tiny/jobs.json", SubmittedJobs).ids == ids
    wait_until_gone(slurm)
    return folder


def test_training_took_two_nodes_and_every_checkpoint_had_its_array_element(
    submitted: Path, slurm: dict[str, str]
) -> None:
    ids = read_json(submitted / "runs/tiny/jobs.json", SubmittedJobs).ids
    expected = [
        ("train", [[ids["train"], "COMPLETED", "2"]]),
        ("evaluate", [[f"{ids['evaluate']}_{element}", "COMPLETED", "2"] for element in range(3)]),
        ("score", [[ids["score"], "COMPLETED", "1"]]),
        ("collect", [[ids["collect"], "COMPLETED", "1"]]),
        ("figures", [[ids["figures"], "COMPLETED", "1"]]),
        ("backfill", [[ids["backfill"], "COMPLETED", "1"]]),
    ]
    assert list(ids) == [name for name, _ in expected]
    run = RunDirectory(submitted / "runs" / "tiny")
    starts = [(start.job, start.outcome, str(len(start.nodes))) for start in read_starts(run) if start.nodes]
    done = [(job, "done", nodes) for _, jobs in expected for job, _, nodes in jobs]
    assert sorted(starts) == sorted(done), failed_logs(submitted)
    for name, rows in expected if has_accounting(slurm) else ():
        deadline = time.monotonic() + 30  # the database lags behind the queue
        while (found := accounted(slurm, ids[name])) != rows and time.monotonic() < deadline:
            time.sleep(1)
        assert found == rows, f"{name}\n{failed_logs(submitted)}"


def test_two_nodes_trained_what_two_local_processes_train(submitted: Path, trained_run: RunDirectory) -> None:
    run = RunDirectory(submitted / "runs" / "tiny")

    def losses(metrics: Path) -> list[float]:
        return [json.loads(line)["loss"] for line in metrics.read_text().splitlines()]

    assert losses(run.metrics) == pytest.approx(losses(trained_run.metrics), rel=1e-5)
    assert run.manifest(0).files["model.safetensors"] == trained_run.manifest(0).files["model.safetensors"]
    assert read_json(run.provenance, dict)["world_size"] == 2


def test_results_are_collected_and_drawn(submitted: Path) -> None:
    results = read_results(submitted / "results" / "tiny.json")
    assert results.missing == [], failed_logs(submitted)
    assert sum(record.headline for record in results.records) == 6
    ids = read_json(submitted / "runs/tiny/jobs.json", SubmittedJobs).ids
    cell = read_json(RunDirectory(submitted / "runs/tiny").result(16, "countdown"), CellResult)
    assert cell.provenance["engines"] == 2
    assert cell.provenance["slurm"]["SLURM_ARRAY_JOB_ID"] == ids["evaluate"]
    assert (submitted / "figures" / "tiny" / "score.pdf").exists(), failed_logs(submitted)


def test_launch_after_the_end_submits_nothing(submitted: Path, tiny_recipe: Path, profile: Path) -> None:
    again = launch(submitted, f"recipe={tiny_recipe}", f"cluster={profile}")
    assert again.returncode == 0, again.stdout + again.stderr
    assert "nothing was run again" in again.stdout, again.stdout + failed_logs(submitted)


def test_a_failed_training_leaves_nothing_pending(
    tiny_recipe: Path, profile: Path, slurm: dict[str, str], tmp_path: Path
) -> None:
    """Tokens that are gone stop both ranks: the array is cancelled, what is missing is told, nothing retried."""
    words = (f"recipe={tiny_recipe}", f"cluster={profile}")
    prepared = launch(tmp_path, f"recipe={tiny_recipe}", "cluster=local", "stages=prepare")
    assert prepared.returncode == 0, prepared.stderr
    (tmp_path / "runs/tiny/data/tokens.npy").unlink()
    done = launch(tmp_path, *words, "stages=train,evaluate,collect,figures")
    assert done.returncode == 0, done.stdout + done.stderr
    wait_until_gone(slurm)
    log = "".join(path.read_text() for path in (tmp_path / "runs/tiny/logs").glob("*/train/*_log.out"))
    assert "tokens.npy" in log
    results = read_results(tmp_path / "results" / "tiny.json")
    assert results.records == [] and len(results.missing) == 6
    run = RunDirectory(tmp_path / "runs/tiny")
    assert read_json(run.jobs, SubmittedJobs).round == 1 and "tokens.npy" in read_json(run.stopped, Stopped).reason


def test_a_refused_job_is_a_clear_error(tiny_recipe: Path, profile: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(profile.read_text().replace("partition: main", "partition: nowhere"))
    done = launch(tmp_path, f"recipe={tiny_recipe}", f"cluster={wrong}")
    assert done.returncode == 2 and "nowhere" not in done.stdout
    assert "invalid partition" in done.stderr and "Traceback" not in done.stderr, done.stderr
