"""The processes that a process has started, seen from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

_PAGE = os.sysconf("SC_PAGE_SIZE")
_LISTED = Path(f"/proc/self/task/{os.getpid()}/children").exists()  # depends on how the kernel was built
_PATIENCE = 10.0  # seconds


def descendants(root: int) -> list[int]:
    """Every process that `root` or one of its descendants is the parent of, those that ended unnoticed included."""
    children = _listed_children if _LISTED else _found_children()
    found, new = [], children(root)
    while new:
        found += new
        new = [child for parent in new for child in children(parent)]
    return found


def _listed_children(pid: int) -> list[int]:
    try:
        lists = [Path(f"/proc/{pid}/task/{task}/children").read_text() for task in os.listdir(f"/proc/{pid}/task")]
    except OSError:  # it has just ended
        return []
    return [int(child) for listed in lists for child in listed.split()]


def _found_children() -> Callable[[int], list[int]]:
    by_parent: dict[int, list[int]] = defaultdict(list)
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                line = Path(f"/proc/{name}/stat").read_text(errors="replace")
            except OSError:
                continue
            by_parent[int(line.rpartition(")")[2].split()[1])].append(int(name))
    return lambda pid: by_parent.get(pid, [])


def used(pids: list[int]) -> tuple[int, int]:
    """Bytes of memory and number of tasks (threads) of the processes; memory that they share counts for each."""
    memory = tasks = 0
    for pid in pids:
        with contextlib.suppress(OSError):  # it has just ended
            memory += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
            tasks += len(os.listdir(f"/proc/{pid}/task"))
    return memory, tasks


def nameless_files(pids: list[int]) -> int:
    """Bytes in files without a name (`memfd_create(2)`) that the processes hold open: memory, though mapped by none."""
    sizes = {}
    for pid in pids:
        with contextlib.suppress(OSError):  # it has just ended
            for descriptor in os.listdir(f"/proc/{pid}/fd"):
                with contextlib.suppress(OSError):  # it has just been closed
                    found = os.stat(f"/proc/{pid}/fd/{descriptor}")
                    if stat.S_ISREG(found.st_mode) and found.st_nlink == 0:
                        sizes[found.st_dev, found.st_ino] = found.st_blocks * 512
    return sum(sizes.values())


def tasks_of_user() -> int:
    """Number of tasks (threads) that the user of this process has on this machine."""
    found = 0
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if name.isdecimal() and os.stat(f"/proc/{name}").st_uid == os.geteuid():
                found += len(os.listdir(f"/proc/{name}/task"))
    return found


def end_descendants(root: int, first: int | None) -> None:
    """Kill everything below `root` and wait until it is gone.

    The end of `first`, a child of `root`, is that of its namespace and its process group: however fast these fork,
    they end at once. What has left the group is stopped first, so that it cannot fork while it is looked for.

    Raises:
        TimeoutError: something was still there after a while.
    """
    if first is not None:
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(first, signal.SIGKILL)
    seen: set[int] = set()
    while new := set(descendants(root)) - seen:
        _signal(new, signal.SIGSTOP)
        seen |= new
    _signal(seen, signal.SIGKILL)
    give_up = time.monotonic() + _PATIENCE
    while left := descendants(root):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{len(left)} processes do not end")
        _signal(set(left), signal.SIGKILL)
        time.sleep(0.001)


def _signal(pids: set[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
