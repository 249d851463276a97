"""Processes known by id and start time, so that an id which the system has given to another process is never hit."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from layout import Layout

DAEMONS = ("munged", "mariadbd", "slurmdbd", "slurmctld", "slurmd", "slurmstepd")  # Debian adds suffixes


@dataclass(frozen=True)
class Process:
    """One process. `started` holds the boot and the clock tick of its start."""

    name: str
    pid: int
    started: str

    @property
    def alive(self) -> bool:
        return start_of(self.pid) == self.started


def start_of(pid: int) -> str | None:
    """Boot id and start tick of a running process; None if there is none, or only its unreaped entry."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if fields[0] in "ZX":
        return None
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {fields[19]}"


def process_of(name: str, pid: int) -> Process | None:
    """The running process of that id."""
    started = start_of(pid)
    return Process(name, pid, started) if started else None


def read_record(layout: Layout) -> list[Process]:
    """The daemons that were started here, in the order of their start; none if the cluster is down."""
    if not layout.record.exists():
        return []
    return [Process(**entry) for entry in json.loads(layout.record.read_text())]


def write_record(layout: Layout, processes: Iterable[Process]) -> None:
    """Replace the record in one step: a crash leaves the old or the new one."""
    temporary = layout.record.with_suffix(".tmp")
    temporary.write_text(json.dumps([asdict(process) for process in processes], indent=1) + "\n")
    temporary.replace(layout.record)


def wait_until_gone(processes: Iterable[Process], seconds: float) -> list[Process]:
    """Wait; returns those that still run when the time is over."""
    deadline = time.monotonic() + seconds
    while alive := [process for process in processes if process.alive]:
        if time.monotonic() > deadline:
            break
        time.sleep(0.02)
    return alive


def stop(processes: Iterable[Process], grace: float = 10.0) -> None:
    """End processes: SIGTERM, and SIGKILL for those that still run after `grace` seconds."""
    remaining = list(processes)
    for signal_number, seconds in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
        for process in remaining:
            if process.alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal_number)
        remaining = wait_until_gone(remaining, seconds)


def find_leftovers(layout: Layout) -> list[Process]:
    """Every running process of this cluster, recorded or not: daemons, job steps, and what jobs have started."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (_is_daemon(layout, entry) or _is_in_job(layout, entry)):
                title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
                found.append(process_of(title, int(entry.name)))
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue  # it has ended, or it is another user's
    return [process for process in found if process]


def _is_daemon(layout: Layout, entry: Path) -> bool:
    """Daemons and the slurmstepd of jobs work inside the cluster's folder."""
    if not os.readlink(entry / "exe").rpartition("/")[2].startswith(DAEMONS):
        return False
    working_folder = Path(os.readlink(entry / "cwd").removesuffix(" (deleted)"))
    return working_folder.is_relative_to(layout.folder)


def _is_in_job(layout: Layout, entry: Path) -> bool:
    """What runs in a job has the cluster's configuration and a node's name, which no shell of a person has."""
    environment = (entry / "environ").read_bytes().split(b"\0")
    return f"SLURM_CONF={layout.slurm_conf}".encode() in environment and any(
        variable.startswith(b"SLURMD_NODENAME=") for variable in environment
    )
