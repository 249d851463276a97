"""Which process launches a run, or runs it on this machine: the holder of its lock."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil

from reprokit.records.run_directory import RunDirectory

TIME = "%Y-%m-%d %H:%M:%S"  # as the lock says it


@dataclass(frozen=True)
class Holder:
    """A process of a machine that has held the lock since some time."""

    process: int
    host: str
    since: str

    @staticmethod
    def current() -> Holder:
        """This process, which begins to hold it now."""
        return Holder(os.getpid(), os.uname().nodename, time.strftime(TIME))

    @property
    def is_here(self) -> bool:
        """Whether it is of this machine; of another one it cannot be told what it does."""
        return self.host == os.uname().nodename

    def __str__(self) -> str:
        return f"process {self.process} on {self.host} since {self.since}"


def holder_of(run: RunDirectory) -> Holder | None:
    """Who holds the lock of a run now; None where nobody does."""
    with suppress(OSError, ValueError):
        found = re.fullmatch(r"process (\d+) on (\S+) since (.+)", run.lock.read_text(errors="replace").strip())
        if found is not None:
            holder = Holder(int(found[1]), found[2], found[3])
            return holder if (_lives(holder) or not holder.is_here) and _is_held(run) else None
    return None


def _lives(holder: Holder) -> bool:
    """Whether the process is still there: one of the same number that began later is another."""
    try:
        began = psutil.Process(holder.process).create_time()
    except psutil.Error:
        return False
    return began < time.mktime(time.strptime(holder.since, TIME)) + 1


def _is_held(run: RunDirectory) -> bool:
    """Whether the lock is held. Asked for a moment, shared, and only where a holder is named, to keep no launch out."""
    with run.lock.open("rb") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno in (errno.EAGAIN, errno.EACCES)
    return False
