"""A real Slurm for tests: the development cluster in a folder of the test's own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

DEVCLUSTER = Path(__file__).parents[1] / "slurm" / "devcluster" / "devcluster.py"
PARTITIONS = ("main", "urgent", "cancelled")


def devcluster(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the devcluster program without site packages: it must work before any environment exists."""
    command = [sys.executable, "-S", "-E", str(DEVCLUSTER), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def started(result: subprocess.CompletedProcess[str]) -> None:
    """See that `devcluster.py up` worked: missing packages skip the test, or fail it where CI is set."""
    if "packages that are not installed" in result.stderr and not os.environ.get("CI"):
        pytest.skip(result.stderr)
    if result.returncode:
        pytest.fail(result.stdout + result.stderr)


@contextmanager
def running_cluster(folder: Path, accounting: bool = False) -> Iterator[dict[str, str]]:
    """A cluster that is up inside the `with` block, and gone with all its processes after it.

    Yields the variables to add to the environment of Slurm's commands. Keep `folder` short: sockets lie in it.
    """
    started(devcluster("up", "--folder", folder, *(["--accounting"] if accounting else [])))
    try:
        yield {"SLURM_CONF": str(folder / "slurm.conf")}
    finally:
        stopped = devcluster("down", "--folder", folder)
    if stopped.returncode:
        pytest.fail(stopped.stdout + stopped.stderr)


def has_accounting(environment: dict[str, str]) -> bool:
    """Whether a cluster, told by the variables that `running_cluster` yields, has a database of its jobs."""
    return "AccountingStorageType" in Path(environment["SLURM_CONF"]).read_text()
