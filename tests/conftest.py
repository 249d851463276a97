"""Shared fixtures: a tiny recipe, one local run of it, and a real Slurm."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from reprokit.records.run_directory import RunDirectory
from tests.slurm_cluster import running_cluster

TINY_RECIPE = """\
name: tiny
model:
  name: Qwen3-tiny
  config: {model_type: qwen3, hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1,
    head_dim: 32, intermediate_size: 96, tie_word_embeddings: false, max_position_embeddings: 512}
  tokenizer_vocab_size: 400
data: {name: Countdown-CoT, generator: countdown, rows: 256, max_length: 512}
training: {learning_rate: 3.0e-3, epochs: 1, global_batch_size: 16, micro_batch_tokens: 1024, precision: fp32,
  gradient_checkpointing: true, checkpoint_steps: [8, 16], state_every: 6}
evaluation:
  max_tokens: 24
  benchmarks:
    countdown: {items: 6, samples: 2}
    chain_sum: {items: 5}
"""


# Secrets of whoever launches, which are to be found nowhere afterwards.
CANARIES = {
    name: f"canary-of-{name.lower()}"
    for name in (
        *("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "OPENAI_API_KEY", "WANDB_API_KEY", "MY_PASSWORD"),
        *("AWS_SECRET_ACCESS_KEY", "DATABASE_PASSWORD"),
    )
}
# Files whose tests measure time or have a cluster of their own: not beside others.
ALONE = {
    *("building", "cluster", "devcluster", "doctor", "generation_kills", "judge_endpoints", "launch"),
    *("livecodebench", "math_benchmarks", "planner", "sandbox", "scoring"),
}
# Files that train and start engines, the longest first: begun before all others, which then fill the gaps.
LONG = (
    *("published", "performance_scripts", "pipeline_local", "generation", "resume", "training", "evaluate_command"),
    *("official_arithmetic", "parallel_engines", "checkpoints", "judges"),
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-accounting", action="store_true", help="the Slurm of the tests has no sacct")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is not to run beside other tests, all that uses a Slurm included; put the longest files first."""
    for item in items:
        if "slurm" in getattr(item, "fixturenames", ()) or _name(item) in ALONE:
            item.add_marker(pytest.mark.alone)
    items.sort(key=lambda item: LONG.index(_name(item)) if _name(item) in LONG else len(LONG))


def _name(item: pytest.Item) -> str:
    return item.path.stem.removeprefix("test_")


def launch(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Type `python -m reprokit.launch` in `folder`."""
    command = [sys.executable, "-m", "reprokit.launch", *words]
    variables = {name: value for name, value in os.environ.items() if name != "SLURM_CONF"}
    return subprocess.run(
        command, cwd=folder, env={**variables, **environment}, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="session")
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe that trains two processes for 16 steps and saves two checkpoints."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(TINY_RECIPE)
    return path


@pytest.fixture(scope="session")
def one_engine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The word for this machine with one process per job: a second engine takes longer to start than to draw."""
    path = tmp_path_factory.mktemp("profile") / "here.yaml"
    path.write_text("scheduler: local\ncheckpoints_per_element: 1000\n")
    return f"cluster={path}"


@pytest.fixture(scope="session")
def local_folder(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the tiny recipe ran on this machine, from preparation to figures."""
    folder = tmp_path_factory.mktemp("local")
    done = launch(folder, f"recipe={tiny_recipe}", "cluster=local", **CANARIES)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "said.txt").write_text(done.stdout + done.stderr)
    return folder


@pytest.fixture(scope="session")
def local_run(local_folder: Path) -> RunDirectory:
    """The run folder of `local_folder`."""
    return RunDirectory(local_folder / "runs" / "tiny")


@pytest.fixture(scope="session")
def trained_run(tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The tiny recipe prepared and trained on this machine, with nothing evaluated."""
    folder = tmp_path_factory.mktemp("trained")
    done = launch(folder, f"recipe={tiny_recipe}", "cluster=local", "stages=prepare,train")
    assert done.returncode == 0, done.stdout + done.stderr
    return RunDirectory(folder / "runs" / "tiny")


@pytest.fixture(scope="session")
def slurm(request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """A real Slurm, with accounting unless it is told otherwise; yields the variables that its commands need."""
    folder = Path(tempfile.mkdtemp(prefix="rk-"))
    try:
        with running_cluster(
            folder / "c", accounting=not request.config.getoption("--without-accounting")
        ) as environment:
            yield environment
    finally:
        shutil.rmtree(folder, ignore_errors=True)
