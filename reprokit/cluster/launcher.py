"""Jobs on this machine end with the process that launched them, however that ends."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

VARIABLE = "REPROKIT_LAUNCHER"  # process id and start time of the launcher, for the tasks of its local jobs
WATCH_SECONDS = 1.0
GRACE_SECONDS = 60.0


@contextmanager
def named_to_jobs() -> Iterator[None]:
    """Jobs that are started inside this block know this process as their launcher."""
    os.environ[VARIABLE] = f"{os.getpid()} {psutil.Process().create_time()}"
    try:
        yield
    finally:
        del os.environ[VARIABLE]


def leave_with_launcher() -> None:
    """Watch the launcher of this local job; once it is gone, this process is told to leave, and killed if it stays."""
    if (launcher := os.environ.get(VARIABLE)) is not None:
        process_id, started = launcher.split()
        threading.Thread(target=_watch, args=(int(process_id), float(started)), daemon=True).start()


def _watch(process_id: int, started: float) -> None:
    while _runs(process_id, started):
        time.sleep(WATCH_SECONDS)
    print("the launch that started this job is gone: the job leaves too", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


def _runs(process_id: int, started: float) -> bool:
    """Whether the process is there, and not another one that got its id."""
    try:
        process = psutil.Process(process_id)
        return abs(process.create_time() - started) < 1.0 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
