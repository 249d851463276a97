"""Tokens, keys and passwords reach the jobs, and no file."""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from reprokit.cluster import slurm as slurm_jobs
from reprokit.cluster.job import Job
from reprokit.cluster.profile import ClusterProfile, Resources
from reprokit.cluster.profiles import load_profile, save_profile
from reprokit.cluster.queue import queued
from reprokit.recipe import load
from reprokit.recipe.problems import RecipeError
from reprokit.records.secrets import assigned_secrets, has_credentials, is_secret, without_secrets
from tests.conftest import CANARIES, launch
from tests.test_launch import prepared

PATIENCE_SECONDS = 120
PROXY = "http://me:canary-of-the-proxy@proxy:3128"


def files_with_a_canary(folder: Path) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and b"canary-of" in path.read_bytes()]


@pytest.mark.parametrize("name", [*CANARIES, "githubToken", "PGPASSWORD", "SMTP_PASS", "GITHUB_PAT", "my_api_keys"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        *("PATH", "HOME", "PWD", "OLDPWD", "SSH_AUTH_SOCK", "HF_TOKEN_PATH", "HF_HOME", "TOKENIZERS_PARALLELISM"),
        *(
            "NCCL_SOCKET_IFNAME",
            "VLLM_MAX_NUM_BATCHED_TOKENS",
            "KEYBOARD",
            "MONKEY",
            "SLURM_CONF",
            "COMPASS",
            "PYTHONPATH",
        ),
    ],
)
def test_names_of_no_secrets(name: str) -> None:
    assert not is_secret(name)


def test_what_may_be_written() -> None:
    shown = {"HF_HOME": "/hf", "URL": "https://host/a@b", "MAIL": "me@host", "BAD": "http://[", "N": "1"}
    hidden = {**CANARIES, "HTTPS_PROXY": PROXY, "DATABASE_URL": "postgresql://u:p@h/d"}
    assert without_secrets({**shown, **hidden}) == shown
    assert has_credentials(f" {PROXY} ")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("export HF_TOKEN=hf_abc", ["HF_TOKEN"]),
        ("export HF_HOME=/hf HF_TOKEN='hf_abc' OPENAI_API_KEY=\"sk\"", ["HF_TOKEN", "OPENAI_API_KEY"]),
        ('export HF_TOKEN=$(cat ~/.token) A_KEY="$B_KEY" C_KEY=`cat c` D_KEY=', []),
        ("module load cuda; source keys.sh", []),
        ("env WANDB_API_KEY=abc apptainer exec image.sif python", ["WANDB_API_KEY"]),
    ],
)
def test_secrets_in_lines_of_shell(line: str, expected: list[str]) -> None:
    assert assigned_secrets(line) == expected


@pytest.mark.parametrize("values", [{"setup": ["export HF_TOKEN=canary-of"]}, {"python": "env A_KEY=canary-of python"}])
def test_a_profile_whose_scripts_would_show_a_secret_is_refused(tmp_path: Path, values: dict[str, object]) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(RecipeError, match="would stand in batch scripts") as refused:
        load_profile(str(path))
    assert "canary" not in str(refused.value)


def test_a_name_that_is_none_does_not_show_its_secret(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("environment: {HF-TOKEN: canary-of}")
    with pytest.raises(RecipeError, match="no environment variable") as refused:
        load_profile(str(path))
    assert "canary" not in str(refused.value)


def test_a_password_in_the_address_of_a_judge_is_refused_and_not_shown() -> None:
    words = ["evaluation.benchmarks.hex_phi.path=recipes/stand_ins/hex_phi.csv", "evaluation.judges.harm.model=m"]
    with pytest.raises(RecipeError, match="api_key_variable") as refused:
        load("mini", [*words, "evaluation.judges.harm.endpoint=https://me:canary-of@host/v1"])
    assert "canary" not in str(refused.value)


def test_a_profile_is_kept_without_its_secrets(tmp_path: Path) -> None:
    save_profile(ClusterProfile(environment={**CANARIES, "HTTPS_PROXY": PROXY, "HF_HOME": "/hf"}), tmp_path / "c.yaml")
    assert load_profile(str(tmp_path / "c.yaml")).environment == {"HF_HOME": "/hf"}
    assert files_with_a_canary(tmp_path) == []


def test_a_dry_run_shows_none(tmp_path: Path) -> None:
    profile = tmp_path / "mine.yaml"
    profile.write_text(yaml.safe_dump({"environment": {**CANARIES, "HTTPS_PROXY": PROXY, "HF_HOME": "/hf"}}))
    done = launch(tmp_path, "recipe=mini", f"cluster={profile}", "dry_run=true", **CANARIES)
    assert done.returncode == 0 and "export HF_HOME=/hf" in done.stdout, done.stderr
    assert "canary-of" not in done.stdout + done.stderr


def test_a_submission_writes_and_says_none(slurm: dict[str, str], tmp_path: Path) -> None:
    """Of the environment it is typed in, and of the profile."""
    folder = tmp_path / "w"
    prepared(folder)
    environment = {**slurm, **CANARIES, "HTTPS_PROXY": PROXY}
    profile = tmp_path / "mine.yaml"
    profile.write_text(
        yaml.safe_dump({"environment": environment, "partition": "main", "sbatch": {"begin": "now+1hour"}})
    )
    done = launch(folder, "recipe=mini", f"cluster={profile}", "stages=evaluate,score,collect", **CANARIES)
    try:
        assert done.returncode == 0, done.stdout + done.stderr
        assert "canary-of" not in done.stdout + done.stderr
        assert list(folder.glob("runs/mini/logs/*/evaluate/*.sh")) and (folder / "runs/mini/jobs.json").exists()
        assert (folder / "runs/mini/cluster.yaml").exists() and list(folder.glob("runs/mini/code/*/reprokit"))
        assert files_with_a_canary(folder) == []
    finally:
        subprocess.run(["scancel", "--me"], env={**os.environ, **slurm}, check=True)


def write_digest(folder: Path) -> None:
    (folder / "digest").write_text(hashlib.sha256(os.environ["HF_TOKEN"].encode()).hexdigest())


def test_a_slurm_job_has_the_secrets_that_no_script_shows(
    slurm: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = ClusterProfile(partition="main", environment={**slurm, **CANARIES})
    for name, value in profile.environment.items():
        monkeypatch.setenv(name, value)
    job = Job("run", "train", write_digest, ((tmp_path,),), Resources())
    slurm_jobs.submit([job], profile, tmp_path / "logs", lambda ids: None)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while queued(slurm["SLURM_CONF"]):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert (tmp_path / "digest").read_text() == hashlib.sha256(CANARIES["HF_TOKEN"].encode()).hexdigest()
    scripts = [path.read_text() for path in tmp_path.glob("logs/train/*.sh")]
    assert scripts and all(f"SLURM_CONF={shlex.quote(slurm['SLURM_CONF'])}" in script for script in scripts)
    assert files_with_a_canary(tmp_path) == []
